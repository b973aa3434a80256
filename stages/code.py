"""Write the fingerprint of the code of every stage.

An edit of a module then reruns only the stages that use the module.
"""

from pathlib import Path

from simgap.core.code import code_lines
from simgap.core.files import atomic_output
from simgap.params.schema import Params
from simgap.stage.command import stage

STAGES = Path(__file__).parent


@stage
def main(params: Params, out: Path) -> None:
    with atomic_output(out) as partial:
        partial.mkdir()
        # This loop leaves out the stage `code`. In dvc.yaml, this stage depends on all source files, so it needs no
        # fingerprint.
        for file in sorted({*STAGES.glob("[!_.]*.py")} - {Path(__file__)}):
            (partial / f"{file.stem}.txt").write_text(code_lines(file), encoding="utf-8")


if __name__ == "__main__":
    main()
