"""The forward walk.

In: any model, and shapes for its inputs. Out: a graph of static shapes where that is possible, at one opset, in float32
or wider, without functions, whose operators have rules; and how its values relate to those of the model.
"""
