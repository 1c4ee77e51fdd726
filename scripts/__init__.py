"""Scripts for contributors: corpora, agreement tables, benchmarks, robustness runs, generators, reproductions."""
