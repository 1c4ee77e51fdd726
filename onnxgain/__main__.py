"""`python -m onnxgain`."""

from onnxgain.cli import main

main()
