"""One result, many formats.

In: what a command found out. Out: text. `reporter` lists the reporters of every command and format, and is the one
place where a result is rendered and written; `text` holds tables, Markdown, JSON, CSV and JUnit, `html` the pages,
`charts` the pictures.
"""
