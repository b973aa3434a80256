"""Run the Slurm scripts of the docs as jobs of two nodes, which are both this machine."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import studies
from conftest import REPOSITORY
from studies import miniature, repository, run

from simgap.core.files import read_json, sha256_of

SCRIPTS = dict(
    zip(
        ("parts", "train"),
        re.findall(
            r"```bash\n(#!/bin/bash\n.*?)```", (REPOSITORY / "docs" / "several-machines.md").read_text(), re.DOTALL
        ),
        strict=True,
    )
)
# Runs one copy of the command for each task. Like the real srun, it refuses to start no task, and sets the variables of a step.
SRUN = """#!/bin/bash
nodes=$SLURM_JOB_NUM_NODES
tasks=$nodes
while [[ ${1-} == --* ]]; do
    case $1 in
        --nodes=*) nodes=${1#*=} ;;
        --ntasks=*) tasks=${1#*=} ;;
    esac
    shift
done
if ((nodes < 1 || tasks < 1)); then
    echo "srun: error: invalid number of nodes or tasks" >&2
    exit 1
fi
started=()
for ((task = 0; task < tasks; task++)); do
    SLURM_NNODES=$nodes SLURM_PROCID=$task "$@" &
    started+=($!)
done
for process in "${started[@]}"; do
    wait "$process" || exit
done
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_valid_bash_and_requests_gpus(script: str, tmp_path: Path) -> None:
    file = tmp_path / "job.sh"
    file.write_text(SCRIPTS[script])
    subprocess.run(["bash", "-n", str(file)], check=True)
    requests = [line for line in SCRIPTS[script].splitlines() if line.startswith("#SBATCH")]
    assert any("--gpus-per-node=" in line for line in requests)
    if shutil.which("shellcheck"):
        # The script `activate` belongs to the environment and is not checked.
        subprocess.run(["shellcheck", "--exclude=SC1091", str(file)], check=True)


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def submit(script: str, study: Path, place: Path, nodes: int) -> None:
    """Run a script as the batch step of a job in `study`, and end all its processes afterwards, as Slurm does."""
    (place / "srun").write_text(SRUN)
    (place / "srun").chmod(0o755)
    (place / "activate").write_text("")
    changes = {"/shared/simgap": str(study), ".venv/bin/activate": str(place / "activate")}
    text = SCRIPTS[script]
    for old, new in {**changes, "6379": free_port(), "29400": free_port()}.items():
        text = text.replace(old, new)
    (place / "job.sh").write_text(text)
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NNODES": str(nodes),
        "SLURMD_NODENAME": socket.gethostname(),
        "SLURM_GPUS_ON_NODE": "1",
        "RAY_TMPDIR": str(place),
        "PYTHONPATH": str(study),
    }
    environment = {**studies.ENVIRONMENT, **job}
    environment["PATH"] = f"{place}{os.pathsep}{environment['PATH']}"
    with (place / "printed").open("w") as printed:
        running = subprocess.Popen(
            ["bash", str(place / "job.sh")],
            env=environment,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = running.wait(timeout=500)
        finally:
            end(place)
    assert code == 0, (place / "printed").read_text()


def end(place: Path) -> None:
    """End all processes that have the job's folder in their environment."""
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_TMPDIR") == str(place):
                process.send_signal(signal.SIGKILL)
                left.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=30)


# dvc waits until every ray has started, so that the order of the recorded calls is fixed.
RECORDED = """#!/bin/bash
while [[ $0 == */dvc ]] && (($(wc -l < "$RAY_TMPDIR/calls") < SLURM_JOB_NUM_NODES)); do :; done
echo "${0##*/} $* $SLURM_NNODES" >> "$RAY_TMPDIR/calls"
"""


@pytest.mark.parametrize("nodes", [1, 3])
def test_every_node_but_the_first_starts_a_worker(nodes: int, place: Path, tmp_path: Path) -> None:
    for program in ("ray", "dvc"):
        (place / program).write_text(RECORDED)
        (place / program).chmod(0o755)
    submit("parts", tmp_path, place, nodes)
    head, *workers, stage = sorted((place / "calls").read_text().splitlines(), key=lambda line: line.startswith("dvc"))
    assert head.startswith("ray start --head --node-ip-address ")
    assert stage == f"dvc repro embed@pool deduplicate similarity {nodes}"
    assert len(workers) == nodes - 1
    for worker in workers:
        assert worker.startswith("ray start --address ")
        assert worker.endswith(f" --block {nodes - 1}")


def study_with(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def changed(content: dict[str, Any]) -> None:
        miniature(content)
        content["embed"]["shards_per_part"] = 1
        content["train"].update(threads=1)
        change(content)

    return changed


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a folder with a short path, because the path of a socket may have at most 107 bytes and Ray opens sockets in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.mark.long
@pytest.mark.slow
def test_two_nodes_share_the_parts_and_train_together(tmp_path: Path, place: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    alone = repository(tmp_path / "alone", "toy", study_with(lambda content: None))
    run(alone, "dvc", "repro", "deduplicate", "similarity", "train@full-0")
    shared = repository(tmp_path / "shared", "toy", study_with(lambda c: c["resources"].update(executor="ray")))

    submit("parts", shared, place, 2)
    assert len(list(place.glob("ray/session_latest/logs/raylet*.out"))) == 2
    for out in ("data/embeddings/pool", "data/splits/full", "data/similarity/val", "data/similarity/sketch"):
        assert sha256_of(shared / out) == sha256_of(alone / out)

    submit("train", shared, place, 2)
    curves = [read_json(study / "metrics" / "train" / "full-0.json")["loss"] for study in (alone, shared)]
    for (_, expected), (_, loss) in zip(*curves, strict=True):
        assert loss == pytest.approx(expected, abs=1e-4)
    assert "train@full-0" not in run(shared, "dvc", "status", "train@full-0")
