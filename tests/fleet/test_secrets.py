"""No password, signature or token is shown, whatever characters it contains."""

from __future__ import annotations

import pytest

from onnxgain.errors import OnnxgainError
from onnxgain.fleet.remote_files import file_name, within
from onnxgain.fleet.secrets import without_secrets, without_secrets_of
from onnxgain.fleet.sources import Source

SECRETS = ["hunter2", "p@ss", "p/a@ss", "a:b@c", "x#y@z", "q?r@s", "a::b@c", "pa%2Fss", "ä€@", "p&w=d@x", "1234/5@6"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("scheme", ["https", "s3", "sftp", "zip://m.onnx::https"])
def test_passwords_are_not_shown(scheme: str, secret: str) -> None:
    url = f"{scheme}://me:{secret}@host/folder/m.onnx"
    shown = without_secrets(url)
    assert secret not in shown and "me:" not in shown
    assert shown.endswith("://host/folder/m.onnx")
    assert secret not in file_name(url)


@pytest.mark.parametrize("secret", ["abc+/=", "a.b-c_d", "x%26y", "eyJhbGciOi.J9.sig", "a#b", "a;b"])
@pytest.mark.parametrize("key", ["sig", "token", "X-Amz-Signature", "code", "jwt", "anything", "SAS"])
@pytest.mark.parametrize("scheme", ["https", "abfs", "gs"])
def test_values_of_queries_are_not_shown(scheme: str, key: str, secret: str) -> None:
    url = f"{scheme}://host/m.onnx?{key}={secret}&download=true"
    shown = without_secrets(url)
    assert secret not in shown and "download=true" in shown
    assert file_name(url) == "m.onnx"


def test_url_without_a_path_has_no_file_name() -> None:
    assert "secret" not in file_name("https://me:secret@host")


def test_messages_hold_no_secret_in_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    url = "https://me:p%40ss%20word@host/m.onnx?sig=a%2Bb%3D"
    text = "401 for https://me:p%40ss%20word@host/m.onnx?sig=a%2Bb%3D, p@ss word, a+b=, Bearer hf_abcdefghij"
    told = without_secrets_of(text, url)
    for secret in ("p%40ss", "p@ss word", "a%2Bb", "a+b=", "hf_abcdefghij"):
        assert secret not in told
    assert "401 for https://host/m.onnx" in told


def test_source_names_contain_no_secret() -> None:
    from pathlib import Path

    source = Source(0, Path("x"), url="https://me:secret@host/m.onnx?token=abc")
    assert (source.name, source.file_name) == ("https://host/m.onnx?token=...", "m.onnx")


def test_endless_response_is_aborted() -> None:
    import time

    start = time.monotonic()
    with pytest.raises(OnnxgainError, match="does not arrive within 0 s"):
        within(0.2, lambda: time.sleep(5))
    assert time.monotonic() - start < 4
    assert within(5.0, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(5.0, lambda: {}["none"])
