"""The derivatives of the operators.

In: the upstream gradient of a node's output, its inputs and its attributes. Out: the gradient of one input. Importing a
module registers its rules.
"""
