"""One result, many formats.

In: the result of a command. Out: text. `reporter` lists the reporters of every command and format, and is the only
place that renders and writes results. `text` holds tables, Markdown, JSON, CSV and JUnit; `html` the pages; `charts`
the pictures.
"""
