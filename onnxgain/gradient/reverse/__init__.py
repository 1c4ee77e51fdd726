"""The reverse walk.

In: a graph whose operators have rules, and adjoints of some of its values (`seed` makes those of a class). Out: the
adjoints of other values, appended to the graph.
"""
