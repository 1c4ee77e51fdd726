"""Evaluates graphs.

In: an ONNX graph and arrays. Out: arrays. `session` runs onnxruntime on a device; `evaluator` and `kernels` compute in
float64 without it; `ort_training_child` runs onnxruntime-training in a separate process. The package also finds out
which runtime is installed, and how many cores and how much memory are available.
"""
