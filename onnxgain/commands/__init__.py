"""The command line: parse, call, print, exit.

In: arguments. Out: what `onnxgain.report` makes of results, files, and an exit code (0 success, 1 a finding, 2 an
error). One file a command, and the option groups they share. Commands import what they need when they run:
`onnxgain --help` must not wait for onnx.
"""
