"""The operators of ONNX's default domain as methods: `op.Conv(x, w, strides=[2, 2])` emits a node.

The list is for the type checker, so that it finds misspelled operators; `Op.__getattr__` creates the methods. Add an
operator's name here before you write a rule that emits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx_ir as ir

from onnxgain.gradient.values import Value

if TYPE_CHECKING:
    from onnxgain.gradient.emitter import Emitter


class Body(Protocol):
    """A subgraph, as it is passed to the rewrite of its node."""

    def __len__(self) -> int:
        """The approximate number of its nodes."""

    def __call__(self, op: Emitter, *inputs: ir.Value | None) -> list[Value]:
        """Emit its nodes through ``op`` for these inputs and return its outputs."""

    def emit(self, op: Emitter, like: Sequence[ir.Value] = ()) -> ir.Graph:
        """Build a graph attribute for a node that will be emitted through ``op``.

        Args:
            op: emitter of the graph that will hold the node.
            like: values whose types and shapes the inputs get; further inputs keep their declared ones.
        """


Operand = ir.Value | np.ndarray | np.generic | float | Sequence[int] | None
"""An input of an operator call: Python numbers and lists become constants, None is an absent optional input."""

Attribute = (
    int | float | str | Sequence[int] | Sequence[float] | Sequence[str] | ir.TensorProtocol | ir.Graph | ir.Attr | Body
    | None
)  # fmt: skip
"""An attribute of an operator call; None means that it is absent."""


class OperatorCall(Protocol):
    """Emits one node and returns its first output; `Op.emit` returns all of them."""

    def __call__(self, *inputs: Operand, **attributes: Attribute) -> Value:
        """Emit the node."""


class Operators:
    """One method per operator."""

    Abs: OperatorCall
    Acos: OperatorCall
    Acosh: OperatorCall
    Add: OperatorCall
    AffineGrid: OperatorCall
    And: OperatorCall
    ArgMax: OperatorCall
    ArgMin: OperatorCall
    Asin: OperatorCall
    Asinh: OperatorCall
    Atan: OperatorCall
    Atanh: OperatorCall
    Attention: OperatorCall
    AveragePool: OperatorCall
    BatchNormalization: OperatorCall
    Bernoulli: OperatorCall
    BitCast: OperatorCall
    BitShift: OperatorCall
    BitwiseAnd: OperatorCall
    BitwiseNot: OperatorCall
    BitwiseOr: OperatorCall
    BitwiseXor: OperatorCall
    BlackmanWindow: OperatorCall
    Cast: OperatorCall
    CastLike: OperatorCall
    CausalConvWithState: OperatorCall
    Ceil: OperatorCall
    Celu: OperatorCall
    CenterCropPad: OperatorCall
    Clip: OperatorCall
    Col2Im: OperatorCall
    Compress: OperatorCall
    Concat: OperatorCall
    ConcatFromSequence: OperatorCall
    Constant: OperatorCall
    ConstantOfShape: OperatorCall
    Conv: OperatorCall
    ConvInteger: OperatorCall
    ConvTranspose: OperatorCall
    Cos: OperatorCall
    Cosh: OperatorCall
    CumProd: OperatorCall
    CumSum: OperatorCall
    DFT: OperatorCall
    DeformConv: OperatorCall
    DepthToSpace: OperatorCall
    DequantizeLinear: OperatorCall
    Det: OperatorCall
    Div: OperatorCall
    Dropout: OperatorCall
    DynamicQuantizeLinear: OperatorCall
    Einsum: OperatorCall
    Elu: OperatorCall
    Equal: OperatorCall
    Erf: OperatorCall
    Exp: OperatorCall
    Expand: OperatorCall
    EyeLike: OperatorCall
    Flatten: OperatorCall
    Floor: OperatorCall
    GRU: OperatorCall
    Gather: OperatorCall
    GatherElements: OperatorCall
    GatherND: OperatorCall
    Gelu: OperatorCall
    Gemm: OperatorCall
    GlobalAveragePool: OperatorCall
    GlobalLpPool: OperatorCall
    GlobalMaxPool: OperatorCall
    Greater: OperatorCall
    GreaterOrEqual: OperatorCall
    GridSample: OperatorCall
    GroupNormalization: OperatorCall
    HammingWindow: OperatorCall
    HannWindow: OperatorCall
    HardSigmoid: OperatorCall
    HardSwish: OperatorCall
    Hardmax: OperatorCall
    Identity: OperatorCall
    If: OperatorCall
    ImageDecoder: OperatorCall
    InstanceNormalization: OperatorCall
    IsInf: OperatorCall
    IsNaN: OperatorCall
    LRN: OperatorCall
    LSTM: OperatorCall
    LayerNormalization: OperatorCall
    LeakyRelu: OperatorCall
    Less: OperatorCall
    LessOrEqual: OperatorCall
    LinearAttention: OperatorCall
    Log: OperatorCall
    LogSoftmax: OperatorCall
    Loop: OperatorCall
    LpNormalization: OperatorCall
    LpPool: OperatorCall
    MatMul: OperatorCall
    MatMulInteger: OperatorCall
    Max: OperatorCall
    MaxPool: OperatorCall
    MaxRoiPool: OperatorCall
    MaxUnpool: OperatorCall
    Mean: OperatorCall
    MeanVarianceNormalization: OperatorCall
    MelWeightMatrix: OperatorCall
    Min: OperatorCall
    Mish: OperatorCall
    Mod: OperatorCall
    Mul: OperatorCall
    Multinomial: OperatorCall
    Neg: OperatorCall
    NegativeLogLikelihoodLoss: OperatorCall
    NonMaxSuppression: OperatorCall
    NonZero: OperatorCall
    Not: OperatorCall
    OneHot: OperatorCall
    Optional: OperatorCall
    OptionalGetElement: OperatorCall
    OptionalHasElement: OperatorCall
    Or: OperatorCall
    PRelu: OperatorCall
    Pad: OperatorCall
    Pow: OperatorCall
    QLinearConv: OperatorCall
    QLinearMatMul: OperatorCall
    QuantizeLinear: OperatorCall
    RMSNormalization: OperatorCall
    RNN: OperatorCall
    RandomNormal: OperatorCall
    RandomNormalLike: OperatorCall
    RandomUniform: OperatorCall
    RandomUniformLike: OperatorCall
    Range: OperatorCall
    Reciprocal: OperatorCall
    ReduceL1: OperatorCall
    ReduceL2: OperatorCall
    ReduceLogSum: OperatorCall
    ReduceLogSumExp: OperatorCall
    ReduceMax: OperatorCall
    ReduceMean: OperatorCall
    ReduceMin: OperatorCall
    ReduceProd: OperatorCall
    ReduceSum: OperatorCall
    ReduceSumSquare: OperatorCall
    RegexFullMatch: OperatorCall
    Relu: OperatorCall
    Reshape: OperatorCall
    Resize: OperatorCall
    ReverseSequence: OperatorCall
    RoiAlign: OperatorCall
    RotaryEmbedding: OperatorCall
    Round: OperatorCall
    STFT: OperatorCall
    Scan: OperatorCall
    Scatter: OperatorCall
    ScatterElements: OperatorCall
    ScatterND: OperatorCall
    Selu: OperatorCall
    SequenceAt: OperatorCall
    SequenceConstruct: OperatorCall
    SequenceEmpty: OperatorCall
    SequenceErase: OperatorCall
    SequenceInsert: OperatorCall
    SequenceLength: OperatorCall
    SequenceMap: OperatorCall
    Shape: OperatorCall
    Shrink: OperatorCall
    Sigmoid: OperatorCall
    Sign: OperatorCall
    Sin: OperatorCall
    Sinh: OperatorCall
    Size: OperatorCall
    Slice: OperatorCall
    Softmax: OperatorCall
    SoftmaxCrossEntropyLoss: OperatorCall
    Softplus: OperatorCall
    Softsign: OperatorCall
    SpaceToDepth: OperatorCall
    Split: OperatorCall
    SplitToSequence: OperatorCall
    Sqrt: OperatorCall
    Squeeze: OperatorCall
    StringConcat: OperatorCall
    StringNormalizer: OperatorCall
    StringSplit: OperatorCall
    Sub: OperatorCall
    Sum: OperatorCall
    SwiGLU: OperatorCall
    Swish: OperatorCall
    Tan: OperatorCall
    Tanh: OperatorCall
    TensorScatter: OperatorCall
    TfIdfVectorizer: OperatorCall
    ThresholdedRelu: OperatorCall
    Tile: OperatorCall
    TopK: OperatorCall
    Transpose: OperatorCall
    Trilu: OperatorCall
    Unique: OperatorCall
    Unsqueeze: OperatorCall
    Upsample: OperatorCall
    Where: OperatorCall
    Xor: OperatorCall
