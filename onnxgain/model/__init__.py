"""Reads a file into a described classifier, and turns images into its input.

In: an untrusted ONNX file, and options that say how to read it. Out: a `Classifier` (its graph, image input, class
head, input scale, and the assumptions made), and stimuli in the shape and scale that it takes. Nothing in the file is
executed.
"""
