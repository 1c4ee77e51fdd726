"""Models by URL are fetched completely or not at all, once while they do not change, and only if a URL is given."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.files import is_url
from onnxgain.fleet.remote import Downloads
from onnxgain.fleet.remote_files import beside, file_name
from onnxgain.fleet.secrets import without_secrets
from onnxgain.fleet.sources import collect_models
from tests.support import models
from tests.support.http_server import Handler, LocalServer

ROOT = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


# ------------------------------------------------------------------------------------------------- names of things
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/m.onnx", True), ("zip://m.onnx::/tmp/a.zip", True), ("http://h/m.onnx", True),
        ("simplecache::s3://b/m", True), ("m.onnx", False), ("C:\\m.onnx", False), ("c://m.onnx", False),
        ("a/b://c", False), ("./http://x", False), ("", False),
    ],
)  # fmt: skip
def test_url_detection(text: str, expected: bool) -> None:
    assert is_url(text) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:secret@host/m.onnx", "https://host/m.onnx"),
        ("https://token@host/m.onnx", "https://host/m.onnx"),
        ("https://h/m.onnx?X-Amz-Signature=abc&download=true", "https://h/m.onnx?X-Amz-Signature=...&download=true"),
        ("https://h/m.onnx?a=1&access_token=abc#x", "https://h/m.onnx?a=1&access_token=...#x"),
        ("zip://m.onnx::https://me:secret@host/a.zip?sig=s", "zip://m.onnx::https://host/a.zip?sig=..."),
        ("s3://bucket/m@2.onnx", "s3://bucket/m@2.onnx"),
        ("https://h/users/me@home/m.onnx", "https://h/users/me@home/m.onnx"),
    ],
)
def test_secrets_are_not_shown(url: str, expected: str) -> None:
    assert without_secrets(url) == expected


@pytest.mark.parametrize(
    ("url", "name", "neighbour"),
    [
        ("s3://b/e/m.onnx", "m.onnx", "s3://b/e/w/x y.bin"),
        ("https://h/e/m.onnx?download=true", "m.onnx", "https://h/e/w/x%20y.bin?download=true"),
        ("zip://e/m.onnx::https://h/a.zip", "m.onnx", "zip://e/w/x y.bin::https://h/a.zip"),
        ("https://h/", "h", "https://h/w/x%20y.bin"),
        ("https://h/..", "model.onnx", "https://h/w/x%20y.bin"),
        ("https://h/a:b*c.onnx", "a_b_c.onnx", "https://h/w/x%20y.bin"),
    ],
)
def test_names_in_urls(url: str, name: str, neighbour: str) -> None:
    assert (file_name(url), beside(url, "w/x y.bin")) == (name, neighbour)


# --------------------------------------------------------------------------------------------------- a server
class Server(LocalServer):
    """An HTTP server of bytes by path."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.marks: dict[str, str] = {}
        self.cut: set[str] = set()
        self.statuses: dict[str, int] = {}

    def answer(self, handler: Handler) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(f"{handler.command} {path}")
        data = self.files.get(path)
        status = self.statuses.get(path, 404 if data is None else 200)
        handler.send_response(status)
        if data is None or status != 200:
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_header("Content-Length", str(len(data)))
        if path in self.marks:
            handler.send_header("ETag", self.marks[path])
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[: len(data) // 2] if path in self.cut else data)
            if path in self.cut:
                handler.close_connection = True

    def gets(self) -> list[str]:
        """The paths fetched since the last call."""
        fetched = [asked.removeprefix("GET ") for asked in self.asked if asked.startswith("GET ")]
        self.asked.clear()
        return fetched


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    started = Server()
    yield started
    started.close()


def serialized(margin: float = 0.0) -> bytes:
    data: bytes = models.conv_net(margin=margin).SerializeToString()
    return data


def test_a_file_is_fetched_once_while_it_does_not_change(server: Server, tmp_path: Path) -> None:
    server.files["/m.onnx"], server.marks["/m.onnx"] = b"first", '"1"'
    downloads = Downloads(tmp_path)
    first = downloads.model(f"{server.url}/m.onnx")
    assert (first.name, first.read_bytes(), server.gets()) == ("m.onnx", b"first", ["/m.onnx"])
    assert (downloads.model(f"{server.url}/m.onnx"), server.gets()) == (first, [])
    server.files["/m.onnx"], server.marks["/m.onnx"] = b"other", '"2"'
    second = downloads.model(f"{server.url}/m.onnx")
    assert (second.read_bytes(), first.read_bytes(), server.gets()) == (b"other", b"first", ["/m.onnx"])
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_file_is_fetched_every_time_if_the_server_gives_no_version(server: Server, tmp_path: Path) -> None:
    downloads = Downloads(tmp_path)
    for content in (b"first", b"other"):
        server.files["/m.onnx"] = content
        assert downloads.model(f"{server.url}/m.onnx").read_bytes() == content


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "no such file (HTTP status 404); check the URL"),
        ("forbidden", "cannot be fetched: HTTP status 403; check your access to it"),
        ("broken", "cannot be fetched: HTTP status 500; check your access to it"),
        ("cut", "cannot be fetched: "),
        ("large", "larger than the 1e-05 GB that may be downloaded per model; raise --max-download if you trust it"),
    ],
)
def test_fetch_errors(fault: str, says: str, server: Server, tmp_path: Path) -> None:
    server.files["/m.onnx"] = b"x" * 20_000
    if fault == "missing":
        del server.files["/m.onnx"]
    if fault == "cut":
        server.cut.add("/m.onnx")
    server.statuses |= {"forbidden": {"/m.onnx": 403}, "broken": {"/m.onnx": 500}}.get(fault, {})
    with pytest.raises(OnnxgainError) as raised:
        Downloads(tmp_path, 10_000 if fault == "large" else 10**6).model(f"{server.url}/m.onnx")
    assert str(raised.value).startswith(f"{server.url}/m.onnx: {says}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_size_limit_applies_if_the_server_gives_no_size(tmp_path: Path) -> None:
    """A small zip file of a large model: the limit applies to the uncompressed size."""
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.onnx", b"\0" * 10**7)
    with pytest.raises(OnnxgainError, match=r"larger than the 0.001 GB"):
        Downloads(tmp_path / "cache", 10**6).model(f"zip://m.onnx::{tmp_path}/bomb.zip")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense://b/m.onnx", "nonsense://b/m.onnx: cannot be fetched: Protocol not known: nonsense; "),
        ("http://127.0.0.1:1/m.onnx", "http://127.0.0.1:1/m.onnx: cannot be fetched: Cannot connect to host 127.0.0.1"),
        ("https://me:pw@127.0.0.1:1/m.onnx?sig=x", "https://127.0.0.1:1/m.onnx?sig=...: cannot be fetched: Cannot con"),
        ("memory://none.onnx", "memory://none.onnx: no such file; check the URL"),
        ("zip://m.onnx::/none.zip", "zip://m.onnx::/none.zip: no such file; check the URL"),
    ],
)
def test_unreachable_urls(url: str, says: str, run: Run, own_cache: Path) -> None:
    pytest.importorskip("aiohttp")
    for command in (("score", url), ("score", url, "--timeout", "60"), ("inspect", url)):
        code, out, err = run(*command)
        assert (code, out) == (2, "") and err.startswith(f"error: {says}") and err.count("\n") == 1


def test_a_protocol_that_needs_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(OnnxgainError, match="cannot be fetched: Install s3fs to access S3; pip install s3fs"):
        Downloads(tmp_path).model("s3://b/m.onnx")


def test_without_fsspec_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    wanted = "s3://b/m.onnx: is a URL, and fsspec is not installed; pip install fsspec"
    assert run("score", "s3://b/m.onnx") == (2, "", f"error: {wanted}\n")
    code, out, err = run("compare", "s3://b/m.onnx", "--no-cache")
    assert code == 2 and wanted in out + err


# ----------------------------------------------------------------------------------------------------- models
def timeless(text: str) -> list[dict[str, object]]:
    records = json.loads(text)["records"]
    return [{name: value for name, value in record.items() if name != "time"} for record in records]


def test_a_model_has_the_same_record_by_url(run: Run, server: Server, tmp_path: Path, own_cache: Path) -> None:
    server.files["/e/m.onnx"], server.marks["/e/m.onnx"] = serialized(), '"1"'
    (tmp_path / "m.onnx").write_bytes(server.files["/e/m.onnx"])
    url = f"{server.url}/e/m.onnx?download=true"
    code, out, err = run("score", tmp_path / "m.onnx", "--format", "json", "--threads", "1")
    assert (code, err) == (0, "")
    (wanted,) = timeless(out)
    wanted["model"] = {**wanted["model"], "path": url, "name": "m.onnx"}  # type: ignore[dict-item]
    for options in ((), ("--timeout", "60")):
        code, out, err = run("score", url, "--format", "json", "--threads", "1", *options)
        assert (code, err, timeless(out)) == (0, "", [wanted])
    code, out, err = run("compare", url, "--threads", "1", "--save-records", tmp_path / "r.json")
    assert code == 0, err
    assert timeless((tmp_path / "r.json").read_text()) == [wanted]
    assert server.gets() == ["/e/m.onnx"]
    code, out, err = run("gate", url, "--baseline", tmp_path / "r.json", "--verified", "--no-cache")
    assert (code, err) == (0, "")
    code, out, err = run("inspect", url, "--format", "json")
    assert (code, json.loads(out)["model"]["path"]) == (0, url)
    code, out, err = run("track", url, "--records", tmp_path / "run.jsonl")
    assert json.loads((tmp_path / "run.jsonl").read_text())["records"][0]["model"]["path"] == url


def test_nothing_is_kept_without_a_cache(server: Server, own_cache: Path, tmp_path: Path) -> None:
    server.files["/m.onnx"] = serialized()
    command = [sys.executable, "-m", "onnxgain", "compare", f"{server.url}/m.onnx", "--no-cache"]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"HOME": str(own_cache), "TMPDIR": str(own_cache)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(own_cache.iterdir()) == []


def test_runtime_telemetry_is_off(own_cache: Path) -> None:
    """onnxruntime 1.29 and later write telemetry data into the user's cache folder when imported."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(own_cache)}
    model = ROOT / "models" / "lenet_mnist_torch.onnx"
    for options in ((), ("--timeout", "60")):
        command = [sys.executable, "-m", "onnxgain", "score", str(model), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    assert list(own_cache.iterdir()) == []


def test_models_in_folders_and_archives(run: Run, tmp_path: Path, own_cache: Path) -> None:
    pytest.importorskip("fsspec")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("e/epoch10.onnx", "e/epoch2.onnx", "notes.txt"):
            archive.writestr(name, serialized())
    archive_url = f"::{tmp_path}/a.zip"
    expected = [f"zip://e/epoch{i}.onnx{archive_url}" for i in (2, 10)]
    for given in ("zip://e/*.onnx", "zip://e/", "zip://**/e*.onnx"):
        assert [source.name for source in collect_models([given + archive_url])] == expected
    assert [source.name for source in collect_models([expected[0], expected[0]])] == expected[:1]
    assert [s.name for s in collect_models([f"zip://e/{archive_url}"], pattern="*10*")] == expected[1:]
    (nothing,) = collect_models([f"zip://f/{archive_url}"])
    assert "no .onnx file there" in str(nothing.error)
    code, out, err = run("compare", f"zip://e/{archive_url}", "--format", "json")
    assert (code, err) == (0, "")
    assert [model["model"] for model in json.loads(out)["groups"][0]["models"]] == expected


@pytest.fixture
def external(server: Server, tmp_path: Path) -> Server:
    """A server of a model with external data."""
    (tmp_path / "e" / "sub").mkdir(parents=True)
    onnx.save(
        models.conv_net(), tmp_path / "e" / "m.onnx", save_as_external_data=True, location="sub/w.bin", size_threshold=0
    )
    for name in ("m.onnx", "sub/w.bin"):
        server.files[f"/e/{name}"] = (tmp_path / "e" / name).read_bytes()
        server.marks[f"/e/{name}"] = '"1"'
    return server


@pytest.mark.parametrize("command", [("score",), ("score", "--timeout", "60"), ("compare",), ("inspect",)])
def test_external_data_is_fetched_too(command: tuple[str, ...], run: Run, external: Server, own_cache: Path) -> None:
    name, *options = command
    for fetched in (["/e/m.onnx", "/e/sub/w.bin"], []):
        code, _, err = run(name, f"{external.url}/e/m.onnx", *options)
        assert (code, err, external.gets()) == (0, "", fetched)
    data = external.files["/e/sub/w.bin"]
    external.files["/e/sub/w.bin"], external.marks["/e/sub/w.bin"] = data[:-4] + b"\0\0\0\0", '"2"'
    code, _, err = run(name, f"{external.url}/e/m.onnx", *options)
    assert (code, err, external.gets()) == (0, "", ["/e/sub/w.bin"])


def test_missing_or_foreign_external_data_is_refused(run: Run, external: Server, own_cache: Path) -> None:
    weights = external.files.pop("/e/sub/w.bin")
    code, _, err = run("score", f"{external.url}/e/m.onnx")
    assert code == 2 and f"error: {external.url}/e/m.onnx: external data file 'sub/w.bin' is missing" in err
    external.files["/w.b"] = external.files["/etc/pass"] = weights
    for place in (b"../../w.b", b"/etc/pass"):
        external.files["/e/n.onnx"] = external.files["/e/m.onnx"].replace(b"sub/w.bin", place)
        external.gets()
        for command in (("score",), ("score", "--timeout", "60"), ("inspect",)):
            code, _, err = run(command[0], f"{external.url}/e/n.onnx", *command[1:])
            assert code == 2 and "lies outside the model's folder" in err, err
        assert set(external.gets()) == {"/e/n.onnx"}


def test_a_model_cannot_name_another_url(tmp_path: Path) -> None:
    """A name with "::" would be an fsspec chain that ends in a file on this machine."""
    pytest.importorskip("fsspec")
    for archive_name, member in (("a.zip", "e/m.onnx"), ("other.zip", "e/sub/w")):
        with zipfile.ZipFile(tmp_path / archive_name, "w") as archive:
            archive.writestr(member, b"content")
    downloads = Downloads(tmp_path / "cache")
    url = f"zip://e/m.onnx::{tmp_path}/a.zip"
    path = downloads.model(url)
    for name in (f"sub/w::{tmp_path}/other.zip", "w::memory://other.zip", "memory://other.zip", "http://h/w.bin"):
        assert downloads.complete(url, path, [path.parent / name]) is False
    assert [file.name for file in path.parent.rglob("*")] == ["m.onnx"]


def test_the_limit_holds_for_all_files_together(external: Server, tmp_path: Path) -> None:
    sizes = [len(data) for data in external.files.values()]
    url = f"{external.url}/e/m.onnx"
    for limit, fits in ((sum(sizes), True), (sum(sizes) - 1, False)):
        downloads = Downloads(tmp_path / str(limit), limit)
        path = downloads.model(url)
        if fits:
            assert downloads.complete(url, path, [path.parent / "sub/w.bin"])
        else:
            with pytest.raises(OnnxgainError, match="raise --max-download"):
                downloads.complete(url, path, [path.parent / "sub/w.bin"])


# -------------------------------------------------------------------------------------------- nothing without a URL
def test_no_connection_is_made_unless_a_url_is_given(
    run: Run, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    models.save(models.conv_net(), tmp_path / "m.onnx")
    for command in ("score", "inspect", "compare", "track", "verify"):
        code, _, err = run(command, tmp_path / "m.onnx")
        assert code == 0, err


def test_fsspec_and_ray_are_imported_lazily(tmp_path: Path, own_cache: Path) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    code = (
        "import sys\nfrom onnxgain.commands.cli import main\n"
        f"try: main(['compare', {str(tmp_path)!r}])\nexcept SystemExit: pass\n"
        "print([m for m in ('fsspec', 'aiohttp', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
