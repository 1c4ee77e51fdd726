"""Callbacks for training: snapshots come in, metrics and a verdict go to the framework's logger.

`monitor` is what they share and runs in the training process; it needs nothing but numpy. `process` is the process
beside it, which writes and measures the snapshots (`weights` puts new weights into the first). `pytorch`, `lightning`,
`keras` and `hugging_face` each import their framework; `onnxgain.callbacks` imports them when they are asked for.
"""
