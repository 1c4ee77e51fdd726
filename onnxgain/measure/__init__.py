"""A classifier and a request become records.

In: a described classifier (`onnxgain.model`) and a `Request` (stimuli, projection, device). Out: one `Measurement` per
stimulus: the record and, on request, the derivative, its spectrum and its pictures. `verify` checks the gradient
against finite differences.
"""
