"""Where a result comes from: dvc.lock, the git commit, and the DVC experiment."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from simgap.core.errors import SimgapError

# The git commit names the code, so these dependencies are not logged.
CODE = ("code/", "src/", "stages/")
# DVC's reference to an experiment: its baseline, whose first two digits are a folder, and its name.
EXPERIMENT_REF = re.compile(r"refs/exps/([0-9a-f]{2}/[0-9a-f]{38})/(.+)")


class Lock:
    """The contents of dvc.lock: which stage wrote a file, and which dependencies the stage had."""

    def __init__(self, path: Path) -> None:
        """Read a lock file.

        Raises:
            SimgapError: The file does not exist, or DVC did not write it.
        """
        self.path = path
        try:
            # The C loader takes a twentieth of the time.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            stages = yaml.load(path.read_text(encoding="utf-8"), loader)["stages"]
            self._stages: dict[str, dict[str, Any]] = {
                out["path"]: stage for stage in stages.values() for out in stage.get("outs", [])
            }
        except FileNotFoundError:
            raise SimgapError(f"{path}: no such file; `dvc repro` writes it") from None
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise SimgapError(f"{path}: is not DVC's lock file ({' '.join(repr(error).split())})") from None

    def maker(self, output: Path) -> dict[str, Any] | None:
        """Return the entry of the stage that wrote an output; None if no stage did."""
        return self._stages.get(output.as_posix())

    def stage_of(self, metrics: Path) -> dict[str, Any]:
        """Return the entry of the stage that wrote a metrics file.

        Raises:
            SimgapError: No stage wrote it, or the file has changed since.
        """
        stage = self.maker(metrics)
        if stage is None:
            raise SimgapError(f"{metrics}: {self.path} names no stage that wrote it; run `dvc repro`")
        written = next(out["md5"] for out in stage["outs"] if out["path"] == metrics.as_posix())
        if hashlib.md5(metrics.read_bytes(), usedforsecurity=False).hexdigest() != written:
            raise SimgapError(f"{metrics}: has changed since {self.path} was written; run `dvc repro`")
        return stage

    def model_of(self, metrics: Path) -> dict[str, Any]:
        """Return path and hashes of the model that was written together with a metrics file.

        Raises:
            SimgapError: See `stage_of`.
        """
        outs = self.stage_of(metrics)["outs"]
        model: dict[str, Any] = next(out for out in outs if out["path"] != metrics.as_posix())
        return model


def inputs(*stages: dict[str, Any]) -> dict[str, str]:
    """Return DVC's hash of each file and folder that stages read, without their code."""
    deps = [dep for stage in stages for dep in stage.get("deps", []) if not dep["path"].startswith(CODE)]
    return {dep["path"]: dep["md5"] for dep in deps if "md5" in dep}


def _git(*arguments: str, text: str | None = None) -> str | None:
    """Return the output of a git command; None if it fails."""
    finished = subprocess.run(["git", *arguments], capture_output=True, text=True, input=text, check=False)
    return finished.stdout.strip() if finished.returncode == 0 else None


def _applied_experiment(lock_file: Path) -> dict[str, str]:
    """Return the tags of the DVC experiment that is applied to the workspace.

    It is the only experiment with this dvc.lock, while the commit has another dvc.lock. Without such an experiment there are
    no tags.
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
    """Return tags that name the git commit and the DVC experiment from which a run is logged.

    They are no part of the result: if several processes log a run, the tags of the first stay.
    """
    variables = {"dvc.experiment": "DVC_EXP_NAME", "dvc.baseline": "DVC_EXP_BASELINE_REV"}
    tags = {tag: os.environ[variable] for tag, variable in variables.items() if variable in os.environ}
    tags = tags or _applied_experiment(lock_file)
    head = _git("rev-parse", "HEAD")
    if head is not None:
        # MLflow shows the tag with its own name in the column Version.
        tags |= dict.fromkeys(("git.commit", "mlflow.source.git.commit"), head)
    return tags
