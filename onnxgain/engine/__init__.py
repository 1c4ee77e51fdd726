"""Whatever evaluates a graph.

In: an ONNX graph and arrays. Out: arrays. `session` runs onnxruntime on a device, `evaluator` and `kernels` compute in
float64 without it, `ort_training_child` asks onnxruntime-training in a process of its own. Which runtime is installed,
and how many cores and how much memory there are, is found out here too.
"""
