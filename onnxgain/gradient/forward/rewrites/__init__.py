"""Operators in terms of others.

In: a node's inputs and attributes, through an emitter. Out: the outputs, computed by other operators; or `Declined`.
Importing a module registers its rewrites.
"""
