"""Rows for `onnxgain/gradient/reverse/rules/convolution.py`; run for every lowering target."""

from __future__ import annotations

from typing import Any

from tests.gradient.arrays import ints, normal
from tests.gradient.checker import Case


def _torch_conv(**options: Any) -> Any:
    def run(x: Any, w: Any, b: Any = None) -> Any:
        from torch.nn import functional

        return getattr(functional, f"conv{x.dim() - 2}d")(x, w, b, **options)

    return run


def _torch_transposed(**options: Any) -> Any:
    def run(x: Any, w: Any, b: Any = None) -> Any:
        from torch.nn import functional

        return getattr(functional, f"conv_transpose{x.dim() - 2}d")(x, w, b, **options)

    return run


CASES = [
    Case("Conv", [normal(2, 3, 5, 6), normal(4, 3, 3, 3), normal(4)], versions=(1, 11, 22), torch=_torch_conv()),
    Case("Conv", [normal(1, 2, 5, 6), normal(2, 2, 3, 2)], {"pads": [1, 0, 2, 1]}, versions=(22,)),
    Case("Conv", [normal(1, 2, 4, 3), normal(3, 2, 1, 1)], versions=(22,), torch=_torch_conv()),
    Case("Conv", [normal(1, 4, 5, 5), normal(6, 2, 3, 3), normal(6)], {"group": 2, "pads": [1] * 4}, versions=(22,),
         torch=_torch_conv(groups=2, padding=1)),
    Case("Conv", [normal(1, 3, 5, 4), normal(6, 1, 3, 3)], {"group": 3, "pads": [1] * 4}, versions=(22,),
         torch=_torch_conv(groups=3, padding=1), note=" depthwise with multiplier"),
    Case("Conv", [normal(1, 3, 4, 5), normal(3, 1, 3, 3)], {"group": 3, "pads": [1] * 4}, versions=(22,),
         torch=_torch_conv(groups=3, padding=1), note=" depthwise"),
    Case("Conv", [normal(1, 2, 6, 7), normal(2, 2, 3, 2)], {"dilations": [2, 3], "pads": [2, 1, 0, 3]}, versions=(22,)),
    # pads wider than the kernel reaches
    Case("Conv", [normal(1, 1, 3, 2), normal(1, 1, 2, 2)], {"pads": [3, 1, 2, 4]}, versions=(22,)),
    Case("Conv", [normal(1, 1, 2, 2), normal(1, 1, 1, 1)], {"pads": [1, 0, 0, 1]}, versions=(22,)),
    Case("Conv", [normal(1, 1, 5, 4), normal(1, 1, 2, 2)], {"pads": [4, 3, 4, 5], "strides": [2, 2]}, versions=(22,)),
    # strided: phases if all strides are equal, with divisible and other output sizes
    Case("Conv", [normal(2, 3, 8, 6), normal(4, 3, 3, 3), normal(4)], {"strides": [2, 2], "pads": [1] * 4},
         versions=(1, 11, 22), torch=_torch_conv(stride=2, padding=1)),
    Case("Conv", [normal(1, 2, 7, 9), normal(3, 2, 3, 3)], {"strides": [2, 2]}, versions=(22,),
         torch=_torch_conv(stride=2)),
    Case("Conv", [normal(1, 3, 8, 8), normal(2, 3, 4, 4)], {"strides": [4, 4]}, versions=(22,),
         torch=_torch_conv(stride=4), note=" patches"),
    Case("Conv", [normal(1, 2, 9, 8), normal(2, 2, 5, 7)], {"strides": [3, 3], "pads": [2, 3, 2, 3]}, versions=(22,)),
    Case("Conv", [normal(1, 2, 8, 7), normal(2, 2, 1, 2)], {"strides": [3, 3], "pads": [0, 1, 1, 0]}, versions=(22,),
         note=" kernel smaller than stride"),
    Case("Conv", [normal(1, 2, 6, 7), normal(3, 2, 1, 1)], {"strides": [2, 2]}, versions=(22,),
         torch=_torch_conv(stride=2), note=" border without effect"),
    Case("Conv", [normal(1, 1, 10, 9), normal(1, 1, 2, 2)], {"strides": [4, 4]}, versions=(22,),
         torch=_torch_conv(stride=4), note=" border without effect"),
    Case("Conv", [normal(1, 4, 7, 6), normal(6, 2, 3, 3)], {"strides": [2, 2], "group": 2, "pads": [0, 1, 1, 1]},
         versions=(22,)),
    Case("Conv", [normal(1, 3, 7, 7), normal(3, 1, 3, 3)], {"strides": [2, 2], "group": 3, "pads": [1] * 4},
         versions=(22,), torch=_torch_conv(stride=2, groups=3, padding=1)),
    Case("Conv", [normal(1, 2, 7, 6), normal(2, 2, 3, 3)], {"strides": [2, 1], "pads": [1, 1, 0, 1]}, versions=(22,),
         note=" unequal strides"),
    Case("Conv", [normal(1, 2, 9, 8), normal(2, 2, 3, 2)],
         {"strides": [2, 2], "dilations": [2, 3], "pads": [2, 0, 1, 3]},
         versions=(22,)),
    # every auto_pad, also with a kernel smaller than the stride
    *(
        Case("Conv", [normal(1, 2, 7, 6), normal(2, 2, 3, 2)], {"auto_pad": auto_pad, "strides": strides},
             versions=versions)
        for strides, versions in (([1, 1], (22,)), ([2, 2], (1, 11, 22)), ([3, 3], (22,)), ([4, 3], (22,)))
        for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    Case("Conv", [normal(1, 2, 7, 6), normal(2, 2, 3, 2)], {"auto_pad": "SAME_LOWER", "dilations": [2, 3]},
         versions=(22,)),
    # one and three axes
    Case("Conv", [normal(2, 2, 6), normal(3, 2, 3), normal(3)], {"pads": [1, 1]}, versions=(11, 22),
         torch=_torch_conv(padding=1)),
    Case("Conv", [normal(1, 2, 9), normal(2, 1, 3)], {"strides": [2], "pads": [0, 2], "group": 2}, versions=(22,)),
    Case("Conv", [normal(1, 2, 9), normal(2, 2, 3)], {"strides": [3], "dilations": [2], "auto_pad": "SAME_UPPER"},
         versions=(22,)),
    Case("Conv", [normal(1, 2, 4, 3, 5), normal(2, 2, 2, 3, 2)], {"pads": [1, 1, 0, 0, 1, 2]}, versions=(22,)),
    Case("Conv", [normal(1, 2, 4, 5, 4), normal(2, 1, 3, 2, 3)], {"strides": [2, 2, 2], "pads": [1] * 6, "group": 2},
         versions=(22,), torch=_torch_conv(stride=2, padding=1, groups=2)),
    # transposed
    Case("ConvTranspose", [normal(2, 3, 4, 3), normal(3, 2, 3, 3), normal(2)], versions=(1, 11, 22),
         torch=_torch_transposed()),
    Case("ConvTranspose", [normal(1, 2, 3, 4), normal(2, 3, 3, 2), normal(3)],
         {"strides": [2, 2], "pads": [1, 0, 1, 0], "output_padding": [1, 0]}, versions=(1, 11, 22),
         torch=_torch_transposed(stride=2, padding=(1, 0), output_padding=(1, 0))),
    Case("ConvTranspose", [normal(1, 2, 3, 4), normal(2, 3, 2, 2)], {"strides": [2, 2]}, versions=(22,),
         torch=_torch_transposed(stride=2)),
    Case("ConvTranspose", [normal(1, 4, 3, 3), normal(4, 2, 3, 3), normal(4)],
         {"strides": [2, 2], "pads": [1] * 4, "group": 2}, versions=(22,),
         torch=_torch_transposed(stride=2, padding=1, groups=2)),
    Case("ConvTranspose", [normal(1, 3, 3, 3), normal(3, 1, 2, 3)], {"pads": [0, 2, 1, 0], "group": 3}, versions=(22,)),
    Case("ConvTranspose", [normal(1, 2, 3, 3), normal(2, 1, 3, 2)],
         {"strides": [2, 3], "dilations": [2, 1], "output_padding": [1, 2]}, versions=(22,),
         torch=_torch_transposed(stride=(2, 3), dilation=(2, 1), output_padding=(1, 2))),
    # onnxruntime requires output_padding to be smaller than the stride
    Case("ConvTranspose", [normal(1, 1, 3, 3), normal(1, 1, 2, 2)],
         {"strides": [1, 1], "dilations": [3, 3], "output_padding": [2, 1]}, versions=(22,), runtime=False,
         torch=_torch_transposed(dilation=3, output_padding=(2, 1))),
    Case("ConvTranspose", [normal(1, 1, 3, 4), normal(1, 1, 1, 2)], {"strides": [2, 3]}, versions=(22,),
         torch=_torch_transposed(stride=(2, 3))),
    *(
        Case("ConvTranspose", [normal(1, 2, 3, 3), normal(2, 1, 3, 4), normal(1)],
             {"auto_pad": auto_pad, "strides": [2, 3], "output_padding": [1, 0]}, versions=versions)
        for auto_pad, versions in (("SAME_UPPER", (1, 11, 22)), ("SAME_LOWER", (22,)), ("VALID", (22,)))
    ),
    Case("ConvTranspose", [normal(1, 1, 3, 3), normal(1, 2, 1, 2), normal(2)],
         {"auto_pad": "SAME_UPPER", "strides": [3, 2]},
         versions=(22,), note=" larger than it reaches"),
    *(
        Case("ConvTranspose", [normal(1, 2, 3, 3), normal(2, 1, 3, 3)],
             {"output_shape": [6, 8], "strides": [2, 3], "auto_pad": auto_pad}, versions=versions)
        for auto_pad, versions in (("NOTSET", (1, 11, 22)), ("SAME_UPPER", (22,)), ("SAME_LOWER", (22,)))
    ),
    Case("ConvTranspose", [normal(1, 1, 3, 3), normal(1, 1, 3, 3), normal(1)],
         {"output_shape": [10, 8], "strides": [3, 3]},
         versions=(11, 22), note=" larger than it reaches"),
    Case("ConvTranspose", [normal(1, 2, 4), normal(2, 1, 3), normal(1)], {"strides": [2], "pads": [1, 0]},
         versions=(22,)),
    Case("ConvTranspose", [normal(1, 2, 2, 3, 2), normal(2, 2, 2, 3, 2)],
         {"strides": [2, 2, 2], "pads": [0, 1, 0, 1, 1, 0]},
         versions=(22,)),
    # with a state; onnxruntime does not read opset 27
    Case(
        "CausalConvWithState", [normal(2, 3, 5), normal(3, 1, 3)], versions=(27,), outputs=2, runtime=False,
    ),
    *(
        Case(
            "CausalConvWithState", [normal(2, 3, length), normal(3, 1, 4), normal(3), normal(2, 3, 3)],
            {"activation": activation}, versions=(27,), outputs=2, runtime=False,
        )
        for activation in ("none", "silu", "swish")
        for length in (2, 5)
    ),
    Case("CausalConvWithState", [normal(1, 2, 4), normal(2, 1, 1), None, normal(1, 2, 0)], versions=(27,), outputs=2,
         runtime=False),
    # blocks back to an image
    Case("Col2Im", [normal(2, 2 * 4, 12), ints(4, 5), ints(2, 2)], versions=(18,),
         torch=lambda x, *_: _fold(x, (4, 5), (2, 2))),
    Case("Col2Im", [normal(1, 6, 12), ints(5, 6), ints(2, 3)],
         {"pads": [1, 0, 0, 1], "strides": [1, 2], "dilations": [2, 1]}, versions=(18,)),
    Case("Col2Im", [normal(1, 6, 4), ints(6), ints(3)], versions=(18,)),
    Case("Col2Im", [normal(1, 8, 12), ints(3, 2, 3), ints(2, 2, 2)], {"strides": [1, 1, 1], "pads": [0, 1, 0, 1, 0, 0]},
         versions=(18,)),
]  # fmt: skip


def _fold(x: Any, size: tuple[int, ...], block: tuple[int, ...]) -> Any:
    from torch.nn import functional

    return functional.fold(x, size, block)
