"""A classifier and a request become records.

In: a described classifier (`onnxgain.model`) and a `Request`: stimuli, projection, device. Out: a `Measurement` a
stimulus: the record, and where asked for the derivative, its spectrum and pictures. `verify` checks the gradient
against finite differences.
"""
