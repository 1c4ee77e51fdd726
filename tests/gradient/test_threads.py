"""Several threads that write gradient graphs concurrently give the same result as one thread."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import onnx
import onnx_ir as ir
import pytest

from onnxgain.model.differentiate import differentiate
from tests.support import models


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def written(model: onnx.ModelProto) -> bytes:
    return ir.to_proto(differentiate(model)).SerializeToString(deterministic=True)


@pytest.mark.usefixtures("frequent_switches")
def test_threads_do_not_write_into_each_others_graphs() -> None:
    model = models.conv_net()
    alone = written(model)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(written, [model] * 24)) == {alone}


def test_arithmetic_of_others_is_left_as_it_was() -> None:
    class Other:
        def Add(self, left: object, right: object) -> str:  # noqa: N802
            return "theirs"

    before = ir.set_value_magic_handler(Other())  # type: ignore[arg-type]
    try:
        written(models.conv_net())
        assert ir.val("x") + ir.val("y") == "theirs"
    finally:
        ir.set_value_magic_handler(before)
