"""Transcription of the forward graph.

In: any model, and shapes for its inputs. Out: a graph in operators that have rules, at one opset, in float32 or wider,
without functions, with static shapes if possible; and a map from the model's values to those of the graph.
"""
