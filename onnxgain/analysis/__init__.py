"""Pure functions over records: pairing, comparison, difference, verdicts, training series, correlation with accuracy.

In: records and measurements (`onnxgain.measure`), tables of accuracies, training logs. Out: frozen dataclasses that say
what the records show. Nothing is measured, printed or drawn here; files are read only where they are tables or logs.
"""
