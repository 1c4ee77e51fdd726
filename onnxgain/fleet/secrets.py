"""Removes passwords, signatures and tokens from URLs and messages, so that records and reports never contain them."""

from __future__ import annotations

import os
import re
import sys
from urllib.parse import quote, unquote

HIDDEN = "..."

_OPEN_KEYS = frozenset(
    {"alt", "download", "dl", "export", "format", "generation", "name", "raw", "ref", "rev", "revision", "version",
     "versionid", "x-amz-expires", "x-amz-date", "x-amz-algorithm"}
)  # fmt: skip
"""Query keys whose values may be shown. Small numbers may be shown for any key."""

_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|_KEY$|SIGNATURE")
_LEAST_SECRET = 8
"""Shorter values of environment variables are not treated as secrets."""


def without_secrets(url: str) -> str:
    """A URL for records and messages: without user and password, and with only the harmless parts of its query."""
    return "::".join(_without_secrets(link)[0] for link in _links(url))


def without_secrets_of(text: str, url: str) -> str:
    """A message without the secrets of a URL, in any quoting, and without secrets from the environment."""
    secrets = [secret for link in _links(url) for secret in _without_secrets(link)[1]]
    secrets += [
        value
        for name, value in os.environ.items()
        if len(value) >= _LEAST_SECRET and _SECRET_VARIABLE.search(name.upper())
    ]
    secrets += _token_of_hub()
    forms = {form for secret in secrets for form in (secret, unquote(secret), quote(secret), quote(secret, safe=""))}
    for form in sorted(forms - {""}, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", lambda match: without_secrets(match[0]), text)


def _token_of_hub() -> list[str]:
    """The token of huggingface_hub, which may come from a file instead of the environment."""
    hub = sys.modules.get("huggingface_hub")
    token = hub.get_token() if hub is not None else None
    return [token] if token else []


def _links(url: str) -> list[str]:
    """Split a chain of URLs, such as zip://a.onnx::https://host/b.zip."""
    return re.split(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|$))", url)


def _without_secrets(link: str) -> tuple[str, list[str]]:
    """A URL of a chain without its secrets, and the secrets."""
    scheme, separator, rest = link.partition("://")
    if not separator:
        return link, []
    secrets: list[str] = []
    while True:
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in host:
            user, _, name = host.rpartition("@")
            rest = name + rest[len(host) :]
        elif ":" in host and "@" in rest:  # a password may contain any character, even one that ends a host name
            user, _, rest = rest.rpartition("@")
        else:
            break
        secrets += [user, *user.split(":", 1)]
    place, mark, query = re.match(r"([^?#]*)([?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    shown = []
    for part in re.split(r"([&#;])", query):
        key, equals, value = part.partition("=")
        if part in ("&", "#", ";", "") or _is_harmless(key, value):
            shown.append(part)
        else:
            shown.append(f"{key}={HIDDEN}" if equals and len(key) < 64 else HIDDEN)
            secrets.append(value if equals else part)
    return f"{scheme}://{place}{mark}{''.join(shown)}", secrets


def _is_harmless(key: str, value: str) -> bool:
    if key.lower() in _OPEN_KEYS:
        return re.fullmatch(r"[\w.:/-]{0,64}", value) is not None
    return re.fullmatch(r"\d{1,4}", value) is not None or (not value and len(key) <= 4)
