"""The option --threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxgain.commands.parameters import Decorator

# More threads are never faster, and the runtime starts them all: 100,000 of them take most of a minute.
threads_option: Decorator[Any] = click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads for the runtime. Default: all usable cores."
)
