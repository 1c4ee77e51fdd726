"""Reverse-mode differentiation of ONNX graphs: graph in, graph out, no runtime in it."""
