"""Find the origin of a result. The origin is an entry in dvc.lock, a git commit and a DVC experiment."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from simgap.core.errors import SimgapError

# The hashes of dependencies in these folders are not logged. They are code, and the logged git commit already
# identifies the code.
CODE = ("code/", "src/", "stages/")
# DVC stores an experiment as the git reference refs/exps/BASELINE/NAME. BASELINE is the hash of a commit with a slash
# after the first two digits.
EXPERIMENT_REF = re.compile(r"refs/exps/([0-9a-f]{2}/[0-9a-f]{38})/(.+)")


class Lock:
    """Look up in dvc.lock which stage wrote a file, and which inputs this stage read."""

    def __init__(self, path: Path) -> None:
        """Read a lock file.

        Raises:
            SimgapError: The file does not exist, or DVC did not write it.
        """
        self.path = path
        try:
            # The C loader is 20 times faster, but not every installation of PyYAML has it.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            stages = yaml.load(path.read_text(encoding="utf-8"), loader)["stages"]
            self._stages: dict[str, dict[str, Any]] = {
                out["path"]: stage for stage in stages.values() for out in stage.get("outs", [])
            }
        except FileNotFoundError:
            raise SimgapError(f"{path}: no such file; run `dvc repro` to write it") from None
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise SimgapError(
                f"{path}: is not DVC's lock file ({' '.join(repr(error).split())}); restore it, or run `dvc repro`"
            ) from None

    def maker(self, output: Path) -> dict[str, Any] | None:
        """Return the entry of the stage that wrote an output, or None if no stage wrote the output."""
        return self._stages.get(output.as_posix())

    def stage_of(self, metrics: Path) -> dict[str, Any]:
        """Return the entry of the stage that wrote a metrics file.

        Raises:
            SimgapError: No stage wrote the file, or the file changed after the stage wrote it.
        """
        stage = self.maker(metrics)
        if stage is None:
            raise SimgapError(f"{metrics}: {self.path} names no stage that wrote it; run `dvc repro`")
        written = next(out["md5"] for out in stage["outs"] if out["path"] == metrics.as_posix())
        if hashlib.md5(metrics.read_bytes(), usedforsecurity=False).hexdigest() != written:
            raise SimgapError(f"{metrics}: has changed since {self.path} was written; run `dvc repro`")
        return stage

    def model_of(self, metrics: Path) -> dict[str, Any]:
        """Return the entry of a model in dvc.lock, given the metrics file of the model.

        The same stage wrote the model and the metrics file. The entry has the path and the hashes of the model.

        Raises:
            SimgapError: No stage wrote the metrics file, or the file changed after the stage wrote it.
        """
        outs = self.stage_of(metrics)["outs"]
        model: dict[str, Any] = next(out for out in outs if out["path"] != metrics.as_posix())
        return model


def inputs(*stages: dict[str, Any]) -> dict[str, str]:
    """Return the hashes of the files and folders that stages read.

    Code is left out, because the git commit identifies it.

    Args:
        stages: Entries of dvc.lock.

    Returns:
        DVC's hash of each file and folder, by its path.
    """
    deps = [dep for stage in stages for dep in stage.get("deps", []) if not dep["path"].startswith(CODE)]
    return {dep["path"]: dep["md5"] for dep in deps if "md5" in dep}


def _git(*arguments: str, text: str | None = None) -> str | None:
    """Return the output of a git command, or None if the command fails."""
    finished = subprocess.run(["git", *arguments], capture_output=True, text=True, input=text, check=False)
    return finished.stdout.strip() if finished.returncode == 0 else None


def _applied_experiment(lock_file: Path) -> dict[str, str]:
    """Return tags for the DVC experiment that the user has applied to the workspace.

    An experiment counts as applied if dvc.lock in the workspace equals dvc.lock of this experiment only. It must also
    differ from dvc.lock of the last commit.

    Args:
        lock_file: The file dvc.lock in the workspace.

    Returns:
        The tags `dvc.experiment` and `dvc.baseline`, by name. There are no tags if no experiment is applied.
    """
    here = _git("hash-object", str(lock_file)) if lock_file.exists() else None
    refs = (_git("for-each-ref", "--format=%(refname)", "refs/exps") or "").splitlines()
    experiments = [found for ref in refs if (found := EXPERIMENT_REF.fullmatch(ref))]
    revisions = ["HEAD", *(found.group() for found in experiments)]
    blobs = _git("cat-file", "--batch-check=%(objectname)", text="".join(f"{rev}:./{lock_file}\n" for rev in revisions))
    if here is None or blobs is None:
        return {}
    committed, *others = blobs.splitlines()
    same = [found for found, blob in zip(experiments, others, strict=True) if blob == here]
    if committed == here or len(same) != 1:
        return {}
    return {"dvc.experiment": same[0].group(2), "dvc.baseline": same[0].group(1).replace("/", "")}


def provenance_tags(lock_file: Path) -> dict[str, str]:
    """Return tags that name the git commit and the DVC experiment of a run.

    The tags do not identify the result. If several processes log one run, the run keeps the tags of the first process.

    Args:
        lock_file: The file dvc.lock in the workspace.

    Returns:
        The value of each tag by name.
    """
    variables = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    tags = {tag: os.environ[variable] for tag, variable in variables.items() if variable in os.environ}
    tags = tags or _applied_experiment(lock_file)
    head = _git("rev-parse", "HEAD")
    if head is not None:
        # The commit is logged under two names, because MLflow's column Version shows only the tag
        # `mlflow.source.git.commit`.
        tags |= dict.fromkeys(("git.commit", "mlflow.source.git.commit"), head)
    return tags
