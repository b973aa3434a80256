"""Push a study to a server with the API of S3, and pull it in a clone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from object_stores import CREDENTIALS, object_store
from studies import ENVIRONMENT, commit, miniature, repository, run, stages_run

pytestmark = pytest.mark.slow

BUCKET = "studies"
# These stages write fingerprints, shards, a model, embeddings and a split.
STAGES = ("code", "draw", "embedder", "embed", "deduplicate")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an S3 server with one bucket, and return its address."""
    with object_store(BUCKET, tmp_path_factory.mktemp("server") / "log") as address:
        yield address


def tiny(content: dict[str, Any]) -> None:
    miniature(content)
    content["draw"]["toy"].update(pool=200, queries=12)
    content["embedder"]["train"].update(samples_seen=64)


@dataclass(frozen=True)
class Shared:
    """A finished study with a remote, and a home folder without credentials."""

    folder: Path
    home: Path

    def dvc(self, folder: Path, *arguments: str, credentials: bool = True, before: tuple[str, ...] = ()) -> Any:
        environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("AWS_")}
        environment |= {"HOME": str(self.home), "AWS_EC2_METADATA_DISABLED": "true"}
        environment |= CREDENTIALS if credentials else {}
        command = [*before, "dvc", *arguments]
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    def clone(self, folder: Path) -> Path:
        run(folder, "git", "clone", "--quiet", str(self.folder), "clone")
        return folder / "clone"


@pytest.fixture(scope="module")
def shared(server: str, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    """Run a study and add a remote as `docs/share-a-study.md` says, without the push."""
    folder = repository(tmp_path_factory.mktemp("study"), "toy", tiny)
    graph = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    (folder / "dvc.yaml").write_text(
        yaml.safe_dump({"stages": {name: graph[name] for name in STAGES}}, sort_keys=False)
    )
    run(folder, "dvc", "repro")
    run(folder, "dvc", "remote", "add", "--default", "lab", f"s3://{BUCKET}/simgap")
    run(folder, "dvc", "remote", "modify", "lab", "endpointurl", server)
    commit(folder)
    return Shared(folder, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def pushed(shared: Shared) -> Shared:
    finished = shared.dvc(shared.folder, "push")
    assert finished.returncode == 0, finished.stdout
    assert re.search(r"\d+ files pushed", finished.stdout)
    return shared


def check_usable(shared: Shared, clone: Path) -> None:
    """Check that a clone is clean, that a pull succeeds, and that nothing is left to run."""
    assert run(clone, "git", "status", "--porcelain") == ""
    pulled = shared.dvc(clone, "pull")
    assert pulled.returncode == 0, pulled.stdout
    again = shared.dvc(clone, "repro")
    assert again.returncode == 0, again.stdout
    assert stages_run(again.stdout) == []
    assert "Data and pipelines are up to date." in again.stdout


def files_of(folder: Path) -> dict[str, bytes]:
    """Read all outputs of a study, by name."""
    paths = [path for part in ("data", "models") for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_repro_runs_nothing_after_a_pull(pushed: Shared, tmp_path: Path) -> None:
    clone = pushed.clone(tmp_path)
    assert not (clone / "data").exists()
    check_usable(pushed, clone)
    found = files_of(clone)
    assert {"data/embeddings/pool/embeddings.json", "data/splits/full/keep.npy"} <= set(found)
    assert found == files_of(pushed.folder)


def test_a_second_push_and_pull_transfer_nothing(pushed: Shared, tmp_path: Path) -> None:
    assert "Everything is up to date." in pushed.dvc(pushed.folder, "push").stdout
    clone = pushed.clone(tmp_path)
    pushed.dvc(clone, "pull")
    assert "Everything is up to date." in pushed.dvc(clone, "pull").stdout


def test_a_changed_parameter_reruns_its_stage_in_the_clone(pushed: Shared, tmp_path: Path) -> None:
    clone = pushed.clone(tmp_path)
    pushed.dvc(clone, "pull")
    params = clone / "params.yaml"
    content = yaml.safe_load(params.read_text())
    content["deduplicate"]["eps"] = 0.01
    params.write_text(yaml.safe_dump(content, sort_keys=False))
    assert stages_run(pushed.dvc(clone, "repro").stdout) == ["deduplicate"]


def test_credentials_are_in_no_tracked_file(pushed: Shared) -> None:
    for name in run(pushed.folder, "git", "ls-files").splitlines():
        content = (pushed.folder / name).read_bytes()
        assert not any(value.encode() in content for value in CREDENTIALS.values()), name


def test_without_credentials_nothing_is_transferred_and_the_error_says_why(pushed: Shared, tmp_path: Path) -> None:
    clone = pushed.clone(tmp_path)
    for command in ("push", "pull"):
        finished = pushed.dvc(clone, command, credentials=False)
        assert finished.returncode != 0
        assert "Unable to locate credentials" in finished.stdout
        assert "Traceback" not in finished.stdout
    check_usable(pushed, clone)


def test_a_missing_bucket(pushed: Shared, tmp_path: Path) -> None:
    clone = pushed.clone(tmp_path)
    for folder, command in ((clone, "pull"), (pushed.folder, "push")):
        run(folder, "dvc", "remote", "modify", "--local", "lab", "url", "s3://another/simgap")
        finished = pushed.dvc(folder, command)
        run(folder, "dvc", "remote", "modify", "--local", "--unset", "lab", "url")
        assert finished.returncode != 0
        assert "bucket does not exist" in finished.stdout
        assert "Traceback" not in finished.stdout
    check_usable(pushed, clone)


def with_a_small_disk(disk: Path, kilobytes: int) -> tuple[str, ...]:
    """Return a command prefix that mounts a small file system at `disk` for the command that follows."""
    script = f'mount -t tmpfs -o size={kilobytes}k tmpfs "$0" && exec "$@"'
    command = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(disk))
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("this system has no mount namespaces for users, so the test cannot fill a disk")
    return command


def test_a_full_disk_ends_a_pull_with_a_clear_error(pushed: Shared, tmp_path: Path) -> None:
    clone, disk = pushed.clone(tmp_path), tmp_path / "disk"
    disk.mkdir()
    run(clone, "dvc", "cache", "dir", "--local", str(disk / "cache"))
    finished = pushed.dvc(clone, "pull", before=with_a_small_disk(disk, 300))
    assert finished.returncode != 0
    assert "No space left on device" in finished.stdout
    assert "Traceback" not in finished.stdout
    check_usable(pushed, clone)
