"""Pure functions over records: pairing, comparison, difference, verdicts, training series, correlation with accuracy.

In: records and measurements (`onnxgain.measure`), tables of accuracies, training logs. Out: frozen dataclasses with the
conclusions. This package does not measure, print or draw, and reads no files except tables, logs and baselines.
"""
