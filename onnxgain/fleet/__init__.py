"""Many models, many processes, many machines.

In: names of models (files, folders, globs, lists, URLs) and a request. Out: one result a model, records or an error,
as they are ready. Each model is measured in a child process with limits, and remembered in a cache; parts can be
measured by several machines or on a Ray cluster.
"""
