"""A file becomes a described classifier, and an image becomes its input.

In: an ONNX file that is not trusted, and how to read it. Out: a `Classifier`: its graph, image input, class head, input
scale, and what had to be assumed; and stimuli in the shape and scale that it takes. Nothing in the file is executed.
"""
