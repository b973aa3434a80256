"""clip-retrieval's inference, in an environment of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perf import environment
from simgap.clip.model import CONFIG_FILE, WEIGHTS_FILE

# It asks for an open_clip below 3, which it brings along; what it imports of pkg_resources went with setuptools 81.
REQUIREMENTS = ("clip-retrieval==2.45.0", "numpy==1.26.4", "setuptools<81")

# clip-retrieval loads a model by an open_clip name and a file of weights, `open_clip:NAME/FILE`; its open_clip does not
# know `local-dir:`. So the name is registered first, by open_clip's own function. Its own runner then works with its own
# reader, mapper and writer; model and warm-up come before the clock starts, the process that logs its speed is left out.
# It leaves models in training mode, in which the warm-up changes batch norms and a vector depends on its batch: so they are
# put into evaluation mode before, where it keeps what it has loaded.
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
    """Install clip-retrieval into the virtual environment `folder`, unless it is there, and give its Python.

    Raises:
        SimgapError: it does not install.
    """
    return environment.install(folder, REQUIREMENTS) / "python"


def embed(
    python: Path, model: Path, shards: list[Path], batch_size: int, workers: int, out: Path
) -> tuple[float, dict[str, NDArray[np.float16]]]:
    """Embed shards with a model directory: the seconds it took, and the unit-norm vector [dim] of every key.

    Only models of OpenAI's mean and deviation, which its open_clip assumes, are preprocessed as their config says.

    Args:
        workers: processes that decode.
        out: where it writes.

    Raises:
        SimgapError: it fails.
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
