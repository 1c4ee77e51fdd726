"""Every command that the gate offers does what it says: each is read from the output and run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnxgain.commands.cli import main
from onnxgain.report.text import gate_text
from tests.support import models
from tests.support.gate_models import MODELS

UNIT = ("--preprocess", "unit")
BASE = ("--baseline", "gain.json")
ACCEPTS = ("to accept", "to add it", "to add one", "to add stimuli")
TAKES_OUT = ("to take it out", "to take them out", "to take one out")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """An empty folder with the folder m of two models."""
    monkeypatch.chdir(tmp_path)
    put("a.onnx", "m/net.onnx")
    put("near.onnx", "m/other.onnx")
    return tmp_path


def put(model: str, place: str) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    models.save(MODELS[model](), Path(place))


def offers(out: str) -> list[tuple[str, str]]:
    """(purpose, command line) of every command that is offered."""
    found = [
        re.fullmatch(r"  (?P<what>(?:to|with) [a-z ]*?) +(?P<line>(?:onnxgain|git) .*)", x) for x in out.splitlines()
    ]
    return [(match["what"], match["line"]) for match in found if match]


@dataclass(frozen=True)
class Case:
    """A finding of the gate.

    Attributes:
        change: what happens after the baseline was made.
        asked: the arguments of the gate.
        word: the word that the output begins with, or has at the beginning of a line.
        offered: the purposes of the commands that are offered, in order.
        before: the arguments with which the baseline is made.
    """

    change: Callable[[], object]
    asked: Sequence[str]
    word: str
    offered: Sequence[str]
    before: Sequence[str] = ("m", *BASE, *UNIT)


def gone(*names: str) -> Callable[[], object]:
    return lambda: [Path(name).unlink() for name in names]


def both() -> None:
    put("near.onnx", "n/net.onnx")


def ambiguous() -> None:
    put("a.onnx", "net.onnx")


def configured(text: str) -> Callable[[], object]:
    return lambda: Path("onnxgain.toml").write_text(f'[gate]\nbaseline = "gain.json"\npreprocess = "unit"\n{text}')


def then(*steps: Callable[[], object]) -> Callable[[], object]:
    return lambda: [step() for step in steps]


def listed() -> None:
    Path("list.txt").write_text("m/net.onnx\nm/other.onnx\n")
    Path("m/other.onnx").unlink()


def of_another_version() -> None:
    text = Path("gain.json").read_text()
    Path("gain.json").write_text(text.replace('"onnxgain.records/1"', '"onnxgain.records/0"', 1))


def as_records() -> None:
    with pytest.raises(SystemExit):
        main(["score", "m/net.onnx", *UNIT, "--fingerprint", "--format", "json", "-o", "new.json"])
    values = json.loads(Path("new.json").read_text())
    values["records"][0]["gain"]["mean"] += 1.0
    values["records"][0]["gain"]["channels"] = [gain + 1.0 for gain in values["records"][0]["gain"]["channels"]]
    Path("new.json").write_text(json.dumps(values))


def changed(model: str) -> Callable[[], object]:
    return lambda: put(model, "m/net.onnx")


def flat() -> None:
    models.save(models.mlp(), Path("m/net.onnx"))


ONE = ("m/net.onnx", *BASE, *UNIT)
WHOLE = ("m", *BASE, *UNIT)
LOOK = ("to look", "with the old file")

CASES = {
    "review": Case(changed("shaken.onnx"), ONE, "REVIEW", (*LOOK, "to accept")),
    "fail": Case(changed("turned.onnx"), ONE, "FAIL", (*LOOK, "to accept")),
    "fail in a folder": Case(changed("turned.onnx"), WHOLE, "FAIL", (*LOOK, "to accept")),
    "another image size": Case(changed("large.onnx"), ONE, "ERROR", ("to accept",)),
    "another number of channels": Case(changed("grey.onnx"), ONE, "ERROR", ("to accept",)),
    "other classes": Case(changed("seven.onnx"), ONE, "FAIL", ("to look", "to accept")),
    "another scale": Case(
        changed("a.onnx"), ("m/net.onnx", *BASE, "--preprocess", "raw"), "ERROR", (*LOOK, "to allow", "to accept")
    ),
    "other stimuli": Case(changed("a.onnx"), (*ONE, "--stimulus", "noise"), "ERROR", (LOOK[1], "to accept")),
    "more stimuli": Case(
        changed("a.onnx"), (*ONE, "--stimulus", "noise", "--stimulus", "impulse"), "ERROR", ("to add stimuli",)
    ),
    "a bound on the change": Case(
        changed("loud.onnx"), (*ONE, "--max-change", "0.01"), "FAIL", (*LOOK, "to accept")
    ),
    "a bound on the gain, which accepting cannot meet": Case(
        changed("shaken.onnx"), (*ONE, "--max-gain", "-300"), "FAIL", LOOK
    ),
    "a bound on the gain and options that accepting has to keep": Case(
        changed("shaken.onnx"), (*ONE, "--max-gain", "300", "--no-dead-channel"), "REVIEW", (*LOOK, "to accept")
    ),
    "dead": Case(changed("zero.onnx"), ONE, "FAIL", ("to see inside",)),
    "a dead channel": Case(changed("dead.onnx"), ONE, "FAIL", LOOK),
    "not finite": Case(changed("nan.onnx"), ONE, "ERROR", ("to see inside",)),
    "no model": Case(lambda: Path("m/net.onnx").write_text("text"), ONE, "ERROR", ()),
    "flat": Case(flat, ONE, "ERROR", ()),
    "new": Case(lambda: put("loud.onnx", "m/third.onnx"), WHOLE, "NEW", ("to add it",)),
    "several new": Case(
        then(lambda: put("loud.onnx", "m/x.onnx"), lambda: put("quiet.onnx", "m/y.onnx")), WHOLE, "NEW", ("to add one",)
    ),
    "new beside one that fails": Case(
        then(lambda: put("loud.onnx", "m/third.onnx"), changed("turned.onnx")), WHOLE, "NEW",
        ("to add it", *LOOK, "to accept"),
    ),
    "an ambiguous name": Case(
        ambiguous, ("net.onnx", *BASE, *UNIT), "NOT JUDGED", ("to add it",), before=("m", "n", *BASE, *UNIT)
    ),
    "a lone baseline": Case(
        lambda: put("a.onnx", "x.onnx"), ("x.onnx", *BASE, *UNIT), "SAME FUNCTION", ("to add it",), before=ONE
    ),
    "no baseline": Case(lambda: None, (*ONE[:1], "--baseline", "none.json", *UNIT), "NOT JUDGED", ("to accept",)),
    "a baseline of another version": Case(of_another_version, ONE, "NOT JUDGED", ("to accept",)),
    "a damaged baseline": Case(lambda: Path("gain.json").write_text("{"), ONE, "NOT JUDGED", ()),
    "saved records": Case(as_records, ("new.json", *BASE, "--max-change", "0.1"), "FAIL", (*LOOK[:1], "to accept")),
    "one of a folder is gone": Case(gone("m/other.onnx"), WHOLE, "MISSING", ("to take it out",)),
    "one of a pattern is gone": Case(gone("m/other.onnx"), ("m/*.onnx", *BASE, *UNIT), "MISSING", ("to take it out",)),
    "all of a folder are gone": Case(gone("m/net.onnx", "m/other.onnx"), WHOLE, "MISSING", ("to take them out",)),
    "all of a pattern are gone": Case(
        gone("m/net.onnx", "m/other.onnx"), ("m/*.onnx", *BASE, *UNIT), "MISSING", ("to take them out",)
    ),
    "the folder is gone": Case(lambda: shutil.rmtree("m"), WHOLE, "MISSING", ("to take them out",)),
    "the file is gone": Case(gone("m/net.onnx"), ONE, "MISSING", ("to take it out",)),
    "both files are gone": Case(
        gone("m/net.onnx", "m/other.onnx"), ("m/net.onnx", "m/other.onnx", *BASE, *UNIT), "MISSING",
        ("to take one out",),
    ),
    "one of a list is gone": Case(listed, ("@list.txt", *BASE, *UNIT), "MISSING", ("to take it out",)),
    "the only one is gone": Case(gone("m/net.onnx", "m/other.onnx"), WHOLE, "MISSING", ("to take it out",), before=ONE),
    "gone beside one that fails": Case(
        then(gone("m/other.onnx"), changed("turned.onnx")), WHOLE, "MISSING", ("to take it out", *LOOK, "to accept")
    ),
    "gone from the folder of a configuration": Case(
        then(configured('models = ["m/"]\n'), gone("m/net.onnx", "m/other.onnx")), (), "MISSING", ("to take them out",)
    ),
    "a file of a configuration is gone": Case(
        then(configured('models = ["m/net.onnx", "m/other.onnx"]\n'), gone("m/other.onnx")), (), "MISSING",
        ("to take it out",),
    ),
    "a configuration that allows float16": Case(
        then(configured('models = ["m/"]\nallow-float16 = true\nrequire = "same-function"\n'), changed("near.onnx")),
        (), "FAIL", (*LOOK, "to accept"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_command_that_is_offered_does_what_it_says(
    name: str, paste: Any, here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    both() if "n" in case.before else None
    assert paste(shlex.join(["onnxgain", "gate", *case.before, "--update-baseline"]))[0] == 0
    shutil.copy("m/net.onnx", "OLD.onnx")
    case.change()
    asked = shlex.join(["onnxgain", "gate", *case.asked])
    code, out, _ = paste(asked)
    assert re.search(rf"^{case.word} ", out, re.MULTILINE), out
    assert (code == 0) == (case.word == "SAME FUNCTION")
    found = offers(out)
    assert [what for what, _ in found] == list(case.offered), out
    before = {path.name: path.read_bytes() for path in here.glob("*.json")}
    for number, (what, line) in enumerate(found):
        copy = tmp_path_factory.mktemp("copy") / str(number)
        shutil.copytree(here, copy)
        monkeypatch.chdir(copy)
        done, shown, error = paste(line)
        _did_what_it_said(what, done, shown + error, found, lambda: paste(asked), case)
        monkeypatch.chdir(here)
    assert {path.name: path.read_bytes() for path in here.glob("*.json")} == before


def _did_what_it_said(
    what: str, code: int, shown: str, found: Sequence[tuple[str, str]], again: Callable[[], Any], case: Case
) -> None:
    if what in (*LOOK, "to see inside", "to see layers"):
        assert code == 0, shown
        return
    after, out, _ = again()
    if what == "to allow":
        assert code in (0, 1, 3), shown
        return
    assert code == 0, shown
    if what in TAKES_OUT:
        names = re.findall(r"REMOVED (\S+): ", shown)
        assert names and not any(f"MISSING {name}" in out for name in names), out
        return
    # Only what another of the offered commands is for may be left.
    alone = not [other for other, _ in found if other in (*ACCEPTS, *TAKES_OUT) and other != what]
    assert after == 0 or not alone or what == "to add one", out
    if what == "to add one":
        assert re.search("^NEW ", out, re.MULTILINE) and "models are not in the baseline" not in out, out


def records_of(baseline: str = "gain.json") -> list[str]:
    return [record["model"]["path"] for record in json.loads(Path(baseline).read_text())["records"]]


def test_taking_a_model_out_leaves_the_others_as_they_are(run: Any, here: Path) -> None:
    """Also those of its folder that changed, which the command for a whole folder would accept."""
    put("loud.onnx", "m/third.onnx")
    assert run(*WHOLE, "--update-baseline")[0] == 0
    Path("m/third.onnx").unlink()
    put("turned.onnx", "m/net.onnx")
    before = json.loads(Path("gain.json").read_text())["records"]
    _, out, _ = run(*WHOLE)
    line = dict(offers(out))["to take it out"]
    assert line == "onnxgain gate m/third.onnx --baseline gain.json --preprocess unit --update-baseline"
    code, out, err = run(*shlex.split(line)[2:])
    assert (code, err) == (0, "wrote gain.json: 2 models\n")
    assert json.loads(Path("gain.json").read_text())["records"] == before[:2]


def test_a_baseline_that_would_hold_nothing_is_removed(run: Any, here: Path) -> None:
    assert run(*WHOLE, "--update-baseline")[0] == 0
    shutil.rmtree("m")
    _, out, _ = run(*WHOLE)
    assert out.startswith("MISSING 2 models are gone, and the baseline holds their records\n")
    line = dict(offers(out))["to take them out"]
    code, out, err = run(*shlex.split(line)[2:])
    assert (code, err) == (0, "removed gain.json, which held no other model\n")
    assert not Path("gain.json").exists()
    code, out, _ = run(*WHOLE)
    assert (code, out.splitlines()[-1]) == (2, "ERROR m: no such file; check the path")
    put("a.onnx", "m/net.onnx")
    _, out, _ = run(*WHOLE)
    assert run(*shlex.split(dict(offers(out))["to accept"])[2:])[0] == 0
    assert records_of() == ["m/net.onnx"]


@pytest.mark.parametrize("name", ["n", "m/nte.onnx", "m/x*.onnx", "x/net.onnx"])
@pytest.mark.parametrize("update", [(), ("--update-baseline",)])
def test_a_mistyped_name_takes_nothing_out(name: str, update: Sequence[str], run: Any, here: Path) -> None:
    assert run(*WHOLE, "--update-baseline")[0] == 0
    before = Path("gain.json").read_bytes()
    code, out, _ = run(name, *BASE, *UNIT, *update)
    assert code == 2 and "MISSING" not in out and "REMOVED" not in out
    assert Path("gain.json").read_bytes() == before


def test_a_name_of_the_configuration_that_leads_to_nothing(run: Any, here: Path) -> None:
    assert run(*WHOLE, "--update-baseline")[0] == 0
    configured('models = ["m/", "n/", "x.onnx", "y*.onnx"]\n')()
    code, out, _ = run()
    assert code == 2
    assert out.count("correct `models` in onnxgain.toml") == 2  # once for both that are no such file
    assert "no such file; correct `models`" in out and "no model matches; correct `models`" in out


def test_evidence_on_answers_stands_only_beside_answers_in_doubt(run: Any, here: Path) -> None:
    assert run(*WHOLE, "--update-baseline")[0] == 0
    known = re.compile("points of accuracy")
    Path("m/other.onnx").unlink()
    _, out, _ = run(*WHOLE)
    assert "MISSING" in out and "SAME FUNCTION" in out and not known.search(out)
    Path("m/net.onnx").write_text("text")
    for form in ("table", "markdown", "html"):
        assert not known.search(run(*WHOLE, "--format", form)[1]), form
    put("turned.onnx", "m/net.onnx")
    for form in ("table", "markdown", "html"):
        assert known.search(run(*WHOLE, "--format", form)[1]), form


def test_labels_leave_room_for_the_commands() -> None:
    text = Path(gate_text.__file__).read_text(encoding="utf-8")
    purposes = re.findall(r'"((?:to|with) [a-z ]+)"', text)
    assert len(purposes) > 6
    assert max(map(len, purposes)) <= 17
