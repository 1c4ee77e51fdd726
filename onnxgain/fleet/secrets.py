"""Passwords, signatures and tokens: none may stand in records, messages or reports, whatever characters it holds."""

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
"""Keys of a query whose values may be shown; so may small numbers of any other."""

_SECRET_VARIABLE = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|_KEY$|SIGNATURE")
_LEAST_SECRET = 8
"""Characters of the shortest environment variable that is taken for a secret."""


def without_secrets(url: str) -> str:
    """A URL as it may stand in records and messages: no user or password, and of its query only what is harmless."""
    return "::".join(_without_secrets(link)[0] for link in _links(url))


def without_secrets_of(text: str, url: str) -> str:
    """A message about a URL without its secrets, in whatever form they stand there, and without this machine's."""
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
    """The token that huggingface_hub found, which may stand in a file instead of the environment."""
    hub = sys.modules.get("huggingface_hub")
    token = hub.get_token() if hub is not None else None
    return [token] if token else []


def _links(url: str) -> list[str]:
    """The links of a chain of URLs, such as zip://a.onnx::https://host/b.zip."""
    return re.split(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|$))", url)


def _without_secrets(link: str) -> tuple[str, list[str]]:
    """A link of a chain without its secrets, and these."""
    scheme, separator, rest = link.partition("://")
    if not separator:
        return link, []
    secrets: list[str] = []
    while True:
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in host:
            user, _, name = host.rpartition("@")
            rest = name + rest[len(host) :]
        elif ":" in host and "@" in rest:  # a password may hold any character, also those that end a host
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
