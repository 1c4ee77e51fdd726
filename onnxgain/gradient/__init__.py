"""Reverse-mode differentiation of ONNX graphs.

In: a forward graph (`onnx_ir`). Out: the same graph with a gradient subgraph of standard ONNX operators. No runtime and
no file is touched. `forward` reads the graph, `reverse` walks it backwards, `passes` improve what was emitted.
"""
