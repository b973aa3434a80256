"""Embed images with clip-retrieval in a separate virtual environment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perf import environment
from simgap.clip.model import CONFIG_FILE, WEIGHTS_FILE

# clip-retrieval installs an open_clip that is older than version 3. The environment also needs pkg_resources. setuptools must
# be older than version 81, because version 81 removed pkg_resources.
REQUIREMENTS = ("clip-retrieval==2.45.0", "numpy==1.26.4", "setuptools<81")

# The program below runs clip-retrieval's own runner, reader, mapper and writer. The open_clip of clip-retrieval does not
# support `local-dir:`. clip-retrieval therefore loads a model by an open_clip name and a weights file, `open_clip:NAME/FILE`.
# Before that, the program registers the name with a function of open_clip. The clock starts after the model is loaded and
# warmed up. A logger that does nothing replaces the process that logs the speed.
#
# clip-retrieval leaves models in training mode. In training mode, the warm-up would change batch norms, and the vector of an
# image would depend on the other images in the batch. The program therefore puts the model into evaluation mode first.
# clip-retrieval caches the loaded model, so the model stays in this mode.
DRIVER = """\
import json, sys, time
from pathlib import Path
import open_clip, torch
from all_clip.main import load_clip, load_clip_without_warmup
from clip_retrieval.clip_inference.mapper import ClipMapper
from clip_retrieval.clip_inference.reader import WebdatasetReader
from clip_retrieval.clip_inference.runner import Runner
from clip_retrieval.clip_inference.writer import NumpyWriter

config, weights, out, batch_size, workers, *shards = sys.argv[1:]
batch_size, workers = int(batch_size), int(workers)
open_clip.add_model_config(config)
name = f"open_clip:{Path(config).stem}/{weights}"
load_clip_without_warmup(name, False, "cuda" if torch.cuda.is_available() else "cpu", None)[0].eval()
_, preprocess, tokenizer = load_clip(name, use_jit=False, warmup_batch_size=batch_size)
mapper = ClipMapper(True, False, False, False, name, False, None, warmup_batch_size=batch_size)

class NoLogger:
    def start(self): pass
    def end(self): pass
    def __call__(self, stats): pass

runner = Runner(
    lambda sampler: WebdatasetReader(sampler, preprocess, tokenizer, shards, batch_size, workers, enable_text=False),
    lambda: mapper,
    lambda part: NumpyWriter(part, out, False, True, False, 1),
    lambda part: NoLogger(),
    1,
)
begun = time.perf_counter()
runner(0)
print(json.dumps({"seconds": time.perf_counter() - begun}))
"""


def install(folder: Path) -> Path:
    """Install clip-retrieval into the virtual environment `folder`, unless it is already installed there.

    Returns:
        Path of the environment's Python.

    Raises:
        SimgapError: The installation fails.
    """
    return environment.install(folder, REQUIREMENTS) / "python"


def embed(
    python: Path, model: Path, shards: list[Path], batch_size: int, workers: int, out: Path
) -> tuple[float, dict[str, NDArray[np.float16]]]:
    """Embed the images of shards with clip-retrieval.

    The open_clip of clip-retrieval normalizes images with OpenAI's mean and standard deviation. clip-retrieval ignores other
    values in a model's config.

    Args:
        python: Path of the Python in clip-retrieval's environment, as `install` returns it.
        model: Folder of the model, an open_clip local directory.
        shards: Paths of the shards to embed.
        batch_size: Number of images in a forward pass.
        workers: Number of processes that decode images.
        out: Folder to write. It must not exist yet.

    Returns:
        The embedding time in seconds, and the unit-norm embedding of each key, fp16 [dim].

    Raises:
        SimgapError: clip-retrieval fails.
    """
    out.mkdir()
    config = out / "model.json"
    config.write_text(json.dumps(json.loads((model / CONFIG_FILE).read_text())["model_cfg"]))
    (out / "driver.py").write_text(DRIVER)
    options = [str(config), str(model.resolve() / WEIGHTS_FILE), str(out.resolve()), str(batch_size), str(workers)]
    printed = environment.call(str(python), str(out / "driver.py"), *options, *(str(path.resolve()) for path in shards))
    keys = pq.read_table(out / "metadata" / "metadata_0.parquet").column("image_path").to_pylist()
    vectors = np.load(out / "img_emb" / "img_emb_0.npy")
    return float(json.loads(printed.splitlines()[-1])["seconds"]), dict(zip(keys, vectors, strict=True))
