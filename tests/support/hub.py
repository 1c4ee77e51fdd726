"""A server with the part of the Hugging Face Hub's API that is needed to read a repository."""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.http_server import Handler, LocalServer

MAIN = "main"
_DESCRIPTION = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")


class Hub(LocalServer):
    """Repositories by name, revisions by name, files by path; `token` gives access if they are private."""

    protocol = "HTTP/1.1"

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.token: str | None = None

    def answer(self, handler: Handler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        parts = urlsplit(handler.path)
        path = unquote(parts.path)
        self.asked.append(f"{handler.command} {path}")
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            _reply(handler, 401, {"error": "Invalid username or password."}, error="RepoNotFound")
        elif match := _DESCRIPTION.fullmatch(path):
            self._describe(handler, match, json.loads(body or b"{}"), "recursive" in parse_qs(parts.query))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", path):
            self._send(handler, self.files.get((match[1], match[2]), {}).get(match[3]))
        else:
            _reply(handler, 404, {"error": "not found"})

    def _describe(self, handler: Handler, match: re.Match[str], body: dict[str, list[str]], all_: bool) -> None:
        name, what, revision, below = match.groups()
        files = self.files.get((name, revision or MAIN))
        if files is None:
            known = any(repository == name for repository, _ in self.files)
            _reply(handler, 404, {"error": "none"}, error="RevisionNotFound" if known else "RepoNotFound")
        elif what in (None, "revision"):
            siblings = [{"rfilename": path} for path in files]
            _reply(handler, 200, {"id": name, "sha": "0" * 40, "siblings": siblings, "tags": [], "private": False})
        else:
            entries = _entries(files)
            if what == "paths-info":
                found = [entry for entry in entries if entry["path"] in body["paths"]]
            else:
                inside = f"{below}/" if below else ""
                found = [entry for entry in entries if entry["path"].startswith(inside)]
                found = [entry for entry in found if all_ or "/" not in entry["path"][len(inside) :]]
            _reply(handler, 200, found)

    def _send(self, handler: Handler, data: bytes | None) -> None:
        if data is None:
            _reply(handler, 404, {"error": "none"}, error="EntryNotFound")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range") or "")
        start, end = (int(wanted[1]), min(int(wanted[2]) + 1, len(data))) if wanted else (0, len(data))
        handler.send_response(206 if wanted else 200)
        handler.send_header("ETag", f'"{_digest(data)}"')
        handler.send_header("X-Repo-Commit", "0" * 40)
        if wanted:
            handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        handler.send_header("Content-Length", str(end - start))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[start:end])


def _entries(files: dict[str, bytes]) -> list[dict[str, str | int]]:
    folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    found: list[dict[str, str | int]] = [{"type": "directory", "path": f, "oid": _digest(f.encode())} for f in folders]
    return found + [{"type": "file", "path": p, "oid": _digest(d), "size": len(d)} for p, d in files.items()]


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _reply(handler: Handler, status: int, content: object, error: str | None = None) -> None:
    data = json.dumps(content).encode()
    handler.send_response(status)
    if error is not None:
        handler.send_header("X-Error-Code", error)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(data)
