"""Reverse-mode differentiation of ONNX graphs.

In: a forward graph (`onnx_ir`), and what of its outputs is to be differentiated. Out: the same graph with a gradient
subgraph of standard ONNX operators. No runtime and no file is touched. `forward` writes the model anew in the operators
that have rules, `reverse` applies the chain rule, `passes` improve the graph as a whole; `graphs` puts these together.
README.md in this folder says how to write a rule.
"""
