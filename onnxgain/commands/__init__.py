"""The command line: parse, call, print, exit.

In: arguments. Out: reports from `onnxgain.report`, files, and an exit code (0 success, 1 a finding, 2 an error). Each
command has a file, and shared option groups have their own. Commands import what they need when they run, as
`onnxgain --help` must not wait for onnx.
"""
