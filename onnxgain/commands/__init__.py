"""One file a command. They import what they need when they run: `onnxgain --help` must not wait for onnx."""
