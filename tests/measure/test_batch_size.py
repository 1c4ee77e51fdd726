"""The number of images evaluated together."""

from __future__ import annotations

import pytest

from onnxgain.engine.device import CPU, CUDA_PROVIDER, Device
from onnxgain.engine.environment import core_cache
from onnxgain.measure.batch_size import MOST_ON_CPU, MOST_ON_GPU, analysed_together, batch_size
from onnxgain.model.classifier import describe
from onnxgain.model.footprint import Footprint
from onnxgain.model.model_file import from_proto
from tests.support import models

MB = 1 << 20
CUDA = Device((CUDA_PROVIDER,))


def footprint(largest: float, *, total: float = 1.0, weights: float = 0.0, typical: int = 1000) -> Footprint:
    return Footprint(int(largest * MB), typical, int(total * MB), int(weights * MB))


def on_cpu(sizes: Footprint, count: int = 64, *, threads: int = 1) -> int:
    return batch_size(sizes, count, device=CPU, threads=threads, cache=2 * MB)


@pytest.mark.parametrize(("largest", "expected"), [(0.01, MOST_ON_CPU), (0.3, 4), (0.7, 2), (1.1, 1), (6.0, 1)])
def test_on_a_cpu_the_largest_node_stays_in_the_cache(largest: float, expected: int) -> None:
    assert on_cpu(footprint(largest)) == expected


def test_each_thread_adds_its_cache() -> None:
    assert (on_cpu(footprint(1.1)), on_cpu(footprint(1.1), threads=4)) == (1, 4)


def test_large_weights_are_read_for_two_images_at_once() -> None:
    assert on_cpu(footprint(6.0, weights=45.0)) == 2


def test_memory_limits_the_batch() -> None:
    assert on_cpu(footprint(6.0, weights=45.0, total=300.0)) == 1
    assert on_cpu(footprint(0.01, total=100.0)) == 2


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (7, 7), (8, 8), (9, 5), (12, 6), (17, 6), (1000, 8)])
def test_the_last_batch_is_nearly_full(count: int, expected: int) -> None:
    assert on_cpu(footprint(0.01), count) == expected


def test_small_networks_get_larger_batches_on_a_gpu() -> None:
    def on_gpu(typical: int, total: float = 10.0) -> int:
        return batch_size(footprint(6.0, typical=typical, total=total), 512, device=CUDA, threads=1, cache=MB)

    assert on_gpu(1000) == MOST_ON_GPU
    assert on_gpu(200_000) == 16
    assert on_gpu(50_000_000) == 1
    assert on_gpu(1000, total=1000.0) == 4


def test_network_sizes_come_from_its_node_outputs() -> None:
    found = describe(from_proto(models.conv_net(size=(32, 32)))).footprint
    image = 3 * 32 * 32 * 4
    assert found.largest > image
    assert found.total >= found.largest - image
    assert found.weights > 0


def test_small_images_are_analysed_in_multiples_of_the_batch() -> None:
    small, large = (describe(from_proto(models.conv_net(size=(side, side)))) for side in (16, 256))
    assert analysed_together(small, 3) % 3 == 0
    assert analysed_together(small, 3) > 3
    assert analysed_together(large, 2) == 2


def test_cache_size_has_a_default_if_the_system_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 0)
    assert core_cache() == MB
    monkeypatch.setattr("os.sysconf", lambda name: 3 * MB)
    assert core_cache() == 3 * MB
