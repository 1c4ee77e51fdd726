"""Callbacks for training: they take snapshots and give metrics and a verdict to the framework's logger.

All share `monitor`, which runs in the training process and needs only numpy. `process` is a second process that writes
and measures the snapshots (`weights` puts new weights into the first one). `pytorch`, `lightning`, `keras` and
`hugging_face` each import their framework; `onnxgain.callbacks` imports them on first use.
"""
