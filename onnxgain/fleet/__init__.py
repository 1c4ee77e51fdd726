"""Measures many models, in many processes and on many machines.

In: names of models (files, folders, globs, lists, URLs) and a request. Out: one result per model, with records or an
error, as soon as it is ready. Each model is measured in a child process with limits, and its result is cached. The work
can be split into parts for several machines, or run on a Ray cluster.
"""
