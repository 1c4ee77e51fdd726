"""`python -m onnxgain`."""

from onnxgain.commands.cli import main

main()
