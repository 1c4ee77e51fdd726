"""Where pip can get the onnxgain from that is running."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname


def package_place() -> str | None:
    """An argument of pip: the checkout or wheel that is here, or a URL of version control. None if it is not known."""
    source = Path(__file__).parents[2]
    if (source / "pyproject.toml").is_file() and (source / "onnxgain").is_dir():
        return str(source)
    try:
        return _installed_from(json.loads(metadata.distribution("onnxgain").read_text("direct_url.json") or "{}"))
    except (metadata.PackageNotFoundError, ValueError, AttributeError, OSError):
        return None


def _installed_from(origin: dict[str, Any]) -> str | None:
    """The place in a `direct_url.json` (https://packaging.python.org/specifications/direct-url)."""
    url = str(origin.get("url", ""))
    if url.startswith("file:"):
        path = Path(url2pathname(urlsplit(url).path))
        return str(path) if path.exists() else None
    if "vcs_info" in origin and urlsplit(url).password is None:
        return f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return None
