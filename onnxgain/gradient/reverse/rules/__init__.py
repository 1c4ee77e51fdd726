"""The derivative of each operator.

In: the adjoint of a node's output, its inputs and its attributes. Out: the adjoint of one input. Importing a module
registers its rules.
"""
