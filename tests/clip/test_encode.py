from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from simgap.clip.encode import encode
from simgap.clip.model import Model, load


@pytest.fixture(scope="module")
def model(model_folder: Path) -> Model:
    return load(model_folder)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return (found * expected).sum(axis=1) / norms


@pytest.mark.parametrize("count", [1, 3, 8])
def test_encode_agrees_with_a_direct_call_of_the_model(model: Model, images: torch.Tensor, count: int) -> None:
    with torch.inference_mode():
        plain = model.clip.encode_image(images[:count].to(model.device)).cpu().numpy()
    found = encode(model, list(images[:count]), 8)
    assert found.dtype == np.float32
    assert np.allclose(found, plain, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_does_not_depend_on_its_batch(model: Model, images: torch.Tensor, precision: str) -> None:
    together = encode(model, list(images), 8, precision)
    alone = [encode(model, [image], 8, precision) for image in images]
    assert np.array_equal(together, np.concatenate(alone))


def test_bf16_changes_only_rounding(model: Model, images: torch.Tensor) -> None:
    exact, rounded = (encode(model, list(images), 8, precision) for precision in ("fp32", "bf16"))
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    assert cosines(rounded, exact).min() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_the_vectors_of_a_cpu(model: Model, images: torch.Tensor, precision: str) -> None:
    with torch.inference_mode():
        expected = model.clip.cpu().encode_image(images).numpy()
    model.clip.to(model.device)
    assert cosines(encode(model, list(images[:5]), 8, precision), expected[:5]).min() > 0.999
    together = encode(model, list(images), 8, precision)
    alone = [encode(model, [image], 8, precision) for image in images]
    assert np.array_equal(together, np.concatenate(alone))
