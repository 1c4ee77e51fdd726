"""HTML that is safe by construction: everything that is not already `Markup` is escaped when it enters an element."""

from __future__ import annotations

import html
import json
from typing import Any

from onnxgain.report.text.formatting import printable

_VOID = ("img", "input", "link", "meta")


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


Child = str | int | float | Markup | None


def text(value: Child) -> Markup:
    """Text escaped for HTML, with unprintable characters replaced. Markup is returned unchanged, None as ""."""
    if isinstance(value, Markup):
        return value
    return Markup("" if value is None else html.escape(printable(str(value))))


def element(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """An element. Underscores in attribute names become dashes, trailing ones are dropped: class_, data_value.

    True makes an attribute without a value; attributes that are False or None are left out.
    """
    given = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        assert not children, name
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child, by: str = "") -> Markup:
    """Several pieces of text or markup, concatenated with the separator `by`."""
    return Markup(by.join(map(text, children)))


def json_script(identifier: str, value: Any) -> Markup:
    """Data for scripts as a script element. The data are ASCII and cannot end the element."""
    dumped = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        dumped = dumped.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json" id="{text(identifier)}">{dumped}</script>')


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
