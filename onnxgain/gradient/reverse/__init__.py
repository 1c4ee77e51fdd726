"""Backpropagation.

In: a graph whose operators have rules, and the gradients of some of its values (`seed` emits those for a class). Out:
the gradients of other values, appended to the graph.
"""
