from __future__ import annotations

import threading

import pytest
import torch
from conftest import jpeg

from simgap.data.decode import decode_samples, prefetch
from simgap.data.shards import Accounting, Sample


def samples(images: list[bytes]) -> list[Sample]:
    return [Sample("0.tar", f"{index:03d}", image, None, None) for index, image in enumerate(images)]


def size_of(picture) -> torch.Tensor:
    return torch.tensor(float(picture.width))


@pytest.mark.parametrize("count", [1, 3, 50])
def test_no_more_is_taken_than_was_said(count: int) -> None:
    taken: list[int] = []
    found = []
    for item in prefetch((taken.append(item) or item for item in range(20)), count):
        found.append(item)
        assert len(taken) == min(20, len(found) + count)
    assert found == list(range(20))


@pytest.mark.parametrize("decoders", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_images_come_in_order_and_broken_ones_are_counted(decoders: int, ahead: int) -> None:
    images = [b"broken" if index in (0, 7, 8, 19) else jpeg(index, size=10 + index) for index in range(20)]
    accounting = Accounting()
    found = list(decode_samples(samples(images), size_of, decoders, ahead, accounting))
    expected = [index for index in range(20) if images[index] != b"broken"]
    assert [(sample.key, float(image)) for sample, image in found] == [(f"{i:03d}", 10.0 + i) for i in expected]
    assert accounting.dropped == {"broken_image": 4}


def test_images_are_decoded_while_those_before_are_used() -> None:
    ready = [threading.Event() for _ in range(20)]

    def preprocess(picture) -> torch.Tensor:
        ready[picture.width - 10].set()
        return size_of(picture)

    images = [jpeg(index, size=10 + index) for index in range(20)]
    for number, _ in enumerate(decode_samples(samples(images), preprocess, 2, 5, Accounting())):
        assert ready[min(19, number + 5)].wait(60)


def test_decoders_take_one_thread_each_and_leave_the_model_its_own() -> None:
    own = torch.get_num_threads()
    found: list[int] = []

    def preprocess(picture) -> torch.Tensor:
        found.append(torch.get_num_threads())
        return size_of(picture)

    images = [jpeg(index) for index in range(6)]
    assert len(list(decode_samples(samples(images), preprocess, 2, 3, Accounting()))) == 6
    assert found == [1] * 6
    assert torch.get_num_threads() == own
