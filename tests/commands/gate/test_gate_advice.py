"""The commands that the gate advises can be pasted, and its message starts with the change of the outputs."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxgain.commands.cli import cli
from onnxgain.commands.gate_commands import option_words
from onnxgain.commands.options import MeasureOptions
from onnxgain.commands.parameters import parameter_names
from tests.support import models


def advised(out: str) -> dict[str, str]:
    """The advised command lines by purpose."""
    found = {}
    for line in out.splitlines():
        for purpose in ("to look", "to allow", "to accept", "to add it", "to see inside"):
            if line.startswith(f"  {purpose}"):
                found[purpose] = line.removeprefix(f"  {purpose}").strip()
    return found


@pytest.fixture
def several(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """A folder with a baseline of two models, the first of which was then replaced."""
    (tmp_path / "m").mkdir()
    for name, source in (("net.onnx", "a.onnx"), ("other.onnx", "near.onnx")):
        shutil.copy(folder / source, tmp_path / "m" / name)
    monkeypatch.chdir(tmp_path)
    assert run("m", "--baseline", "gain.json", "--preprocess", "unit", "--update-baseline")[0] == 0
    shutil.copy(folder / "shaken.onnx", tmp_path / "m" / "net.onnx")
    return run


def test_printed_commands_work(several: Any, paste: Any) -> None:
    code, out, _ = several("m/net.onnx", "--baseline", "gain.json", "--preprocess", "unit")
    assert code == 3
    commands = advised(out)
    assert commands == {
        "to look": "onnxgain diff gain.json::m/net.onnx m/net.onnx --preprocess unit",
        "to accept": "onnxgain gate m/net.onnx --baseline gain.json --preprocess unit --update-baseline",
    }
    code, shown, err = paste(commands["to look"])
    assert (code, err) == (0, "")
    assert "answers    review: " in shown
    code, _, err = paste(commands["to accept"])
    assert (code, err) == (0, "wrote gain.json: 2 models\n")
    assert several("m", "--baseline", "gain.json", "--preprocess", "unit")[0] == 0


def test_existing_baseline_model_is_compared_directly(several: Any) -> None:
    code, out, _ = several("m/net.onnx", "--baseline", "gain.json", "--preprocess", "unit", "--format", "json")
    assert code == 3
    shutil.copy("m/net.onnx", "renamed.onnx")
    one = json.loads(Path("gain.json").read_text())
    one["records"] = one["records"][:1]
    Path("one.json").write_text(json.dumps(one))
    _, out, _ = several("renamed.onnx", "--baseline", "one.json", "--preprocess", "unit")
    assert advised(out)["to look"] == "onnxgain diff m/net.onnx renamed.onnx --preprocess unit"


def test_another_scale_can_be_allowed(several: Any, paste: Any, folder: Path) -> None:
    shutil.copy(folder / "a.onnx", "m/net.onnx")
    code, out, _ = several("m/net.onnx", "--baseline", "gain.json", "--preprocess", "inception")
    assert code == 2
    line = advised(out)["to allow"]
    assert line == "onnxgain gate m/net.onnx --baseline gain.json --preprocess inception --allow-scale-change"
    assert paste(line)[0] in (0, 1, 3)


def test_a_stimulus_that_the_baseline_lacks(several: Any, paste: Any, folder: Path) -> None:
    shutil.copy(folder / "a.onnx", "m/net.onnx")
    stimuli = ("--stimulus", "impulse", "--stimulus", "noise:seed=0")
    code, out, _ = several("m/net.onnx", "--baseline", "gain.json", "--preprocess", "unit", *stimuli)
    assert code == 2
    (line,) = [line.strip() for line in out.splitlines() if line.startswith("  to ")]
    purpose, command = line[:18].strip(), line[18:]
    assert purpose == "to add stimuli"
    assert paste(command)[0] == 0
    assert several("m/net.onnx", "--baseline", "gain.json", "--preprocess", "unit", *stimuli)[0] == 0


def test_the_json_has_the_commands_and_the_evidence(several: Any) -> None:
    _, out, _ = several("m/net.onnx", "--baseline", "gain.json", "--preprocess", "unit", "--format", "json")
    document = json.loads(out)
    assert document["models"][0]["commands"]["accept"].endswith("--update-baseline")
    assert document["evidence"]["variants"] == 652


def test_outputs_come_first_with_the_evidence(several: Any) -> None:
    arguments = ("m/net.onnx", "--baseline", "gain.json", "--preprocess", "unit")
    _, out, _ = several(*arguments)
    first, second = out.splitlines()[:2]
    assert first.startswith("REVIEW m/net.onnx: ")
    assert "answer" in first
    assert "more than 0.67 %" in first
    assert second.startswith("  spectrum ")
    assert "of 317 changes that cost at most 0.2 points of accuracy, 24 failed and 46 were for review" in out
    _, out, _ = several(*arguments, "--format", "markdown")
    lines = [line for line in out.splitlines() if line]
    assert lines[1].startswith("### onnxgain gate: REVIEW: ")
    assert "answer" in lines[1]
    assert lines[2].startswith("Spectrum: ")
    assert lines[3] == "Model: m/net.onnx"
    assert any(line.startswith("- weights of ") for line in lines)


def test_largest_change_comes_first(run: Any) -> None:
    stimuli = ("--stimulus", "impulse", "--stimulus", "noise:seed=0", "--preprocess", "imagenet")
    assert run("a.onnx", "--baseline", "order.json", *stimuli, "--update-baseline")[0] == 0
    saved = json.loads(Path("order.json").read_text())
    for record, shift in zip(saved["records"], (0.5, -3.0), strict=True):
        record["gain"]["channels"] = [gain + shift for gain in record["gain"]["channels"]]
        record["gain"]["mean"] += shift
    Path("order.json").write_text(json.dumps(saved))
    code, out, _ = run("a.onnx", "--baseline", "order.json", "--preprocess", "imagenet", "--max-change", "9")
    assert code == 0
    rows = [line.split()[0] for line in out.splitlines() if line.startswith(("impulse ", "noise"))]
    assert rows == ["noise:seed=0", "impulse"]


def test_a_model_dead_at_one_stimulus_is_judged_at_the_other(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead stimulus is a finding of its own, not a mismatch, which would be an error."""
    monkeypatch.chdir(tmp_path)
    models.save(models.conv_net(), tmp_path / "net.onnx")
    stimuli = ("--stimulus", "impulse", "--stimulus", "noise:seed=0", "--preprocess", "raw")
    assert run("net.onnx", "--baseline", "b.json", *stimuli, "--update-baseline")[0] == 0
    models.save(dead_at_the_impulse(), tmp_path / "net.onnx")
    code, out, _ = run("net.onnx", "--baseline", "b.json", "--preprocess", "raw")
    assert code == 1
    assert "its answers differ by" in out.splitlines()[0]
    assert "the derivative of class" in out
    assert "for the stimulus 'impulse'" in out
    assert "try another" not in out
    assert any(line.startswith("noise:seed=0 ") for line in out.splitlines())


def dead_at_the_impulse() -> Any:
    """The model clips the image to a range: the impulse is above it and the background of 0 below it."""
    model = models.conv_net()
    name = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["cut" if used == name else used for used in node.input]
    bounds = {"least": 1.0, "most": 100.0}
    for bound, value in bounds.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), bound))
    model.graph.node.insert(0, helper.make_node("Clip", [name, *bounds], ["cut"]))
    return model


def options_of_gate() -> list[click.Option]:
    gate = cli.get_command(click.Context(cli), "gate")
    assert gate is not None
    names = parameter_names(MeasureOptions)
    return [p for p in gate.params if isinstance(p, click.Option) and p.name in names]


WORDS = {
    "image_shape": ["3x20x30"], "image_input": ["x y"], "inputs": ["a=1", "b=[1,2]"], "output": ["out"],
    "head": ["sigmoid"], "preprocess": ["caffe"], "mean": ["0.485,0.456,0.406"], "std": ["0.25"],
    "scale": ["0.00392157"], "custom_ops": ["lib.so"], "stimuli": ["noise:seed=3", "impulse"], "images": ["cat.jpg"],
    "projection": ["logit"], "class_index": ["3"], "threads": ["2"], "device": ["cuda:1"], "providers": ["openvino"],
    "tf32": [],
}  # fmt: skip


@pytest.mark.parametrize("option", options_of_gate(), ids=lambda option: str(option.name))
def test_advice_keeps_the_options_given(option: click.Option) -> None:
    command = cli.get_command(click.Context(cli), "gate")
    assert command is not None
    assert option.name is not None
    values = WORDS[option.name]
    words = [word for value in values for word in (option.opts[0], value)] if values else [option.opts[0]]
    context = command.make_context("gate", [*words, "m.onnx"])
    assert list(option_words(command, parameter_names(MeasureOptions), context.params)) == words


def test_name_that_looks_like_an_option_is_written_as_a_path(
    paste: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "a.onnx", tmp_path / "-net.onnx")
    command = "onnxgain gate --baseline g.json --preprocess unit"
    assert paste(f"{command} --update-baseline -- -net.onnx")[0] == 0
    shutil.copy(folder / "shaken.onnx", tmp_path / "-net.onnx")
    code, out, _ = paste(f"{command} -- -net.onnx")
    assert code == 3
    line = advised(out)["to look"]
    assert line == "onnxgain diff g.json::-net.onnx ./-net.onnx --preprocess unit"
    assert paste(line)[0] == 0


# ------------------------------------------------------------------------------------- what it was compared with
UNIT = ("--preprocess", "unit")


def json_of(run: Any, *arguments: str) -> dict[str, Any]:
    (found,) = json.loads(run(*arguments, "--format", "json")[1])["models"]
    assert isinstance(found, dict)
    return found


def test_another_name_says_what_it_is_compared_with_and_how_to_add_it(several: Any, paste: Any) -> None:
    several("m/other.onnx", "--baseline", "one.json", *UNIT, "--update-baseline")
    shutil.copy("m/other.onnx", "renamed.onnx")
    arguments = ("renamed.onnx", "--baseline", "one.json", *UNIT)
    code, out, _ = several(*arguments)
    line = "onnxgain gate renamed.onnx --baseline one.json --preprocess unit --update-baseline"
    assert code == 0
    assert out.splitlines()[1:3] == [
        "  compared with     m/other.onnx, the only model in one.json; renamed.onnx itself is not in the baseline",
        f"  to add it         {line}",
    ]
    assert json_of(several, *arguments)["compared_with"] == "m/other.onnx"
    assert "Compared with m/other.onnx, the only model in one.json" in several(*arguments, "--format", "html")[1]
    assert "Compared with m/other.onnx, the only model" in several(*arguments, "--format", "markdown")[1]
    assert 'name="compared with" value="m/other.onnx"' in several(*arguments, "--format", "junit")[1]
    code, out, err = paste(line)
    assert (code, err) == (0, "wrote one.json: 2 models\n")
    code, out, _ = several(*arguments)
    assert (code, "compared with" in out, "to add it" in out) == (0, False, False)
    assert json_of(several, *arguments)["compared_with"] == "renamed.onnx"


def test_another_folder_says_what_it_is_compared_with(several: Any) -> None:
    shutil.copy("m/other.onnx", "other.onnx")
    code, out, _ = several("other.onnx", "--baseline", "gain.json", *UNIT)
    assert code == 0
    assert out.splitlines()[1] == "  compared with     m/other.onnx of gain.json"
    assert "to add it" not in out


def test_a_model_that_is_not_in_a_baseline_of_several_is_an_error_with_the_way_to_add_it(several: Any) -> None:
    shutil.copy("m/other.onnx", "renamed.onnx")
    code, out, _ = several("renamed.onnx", "--baseline", "gain.json", *UNIT)
    assert code == 2
    assert out.startswith("NEW   renamed.onnx: there is nothing to compare it with\n")
    assert "not in the baseline gain.json, which holds m/net.onnx, m/other.onnx" in out
    assert advised(out) == {
        "to add it": "onnxgain gate renamed.onnx --baseline gain.json --preprocess unit --update-baseline"
    }
    assert json_of(several, "renamed.onnx", "--baseline", "gain.json", *UNIT)["compared_with"] is None


@pytest.fixture
def ambiguous(several: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """In the folder m, where a baseline holds m/net.onnx and n/net.onnx."""
    Path("n").mkdir()
    shutil.copy("m/other.onnx", "n/net.onnx")
    assert several("m/net.onnx", "n/net.onnx", "--baseline", "both.json", *UNIT, "--update-baseline")[0] == 0
    shutil.copy("m/net.onnx", "net.onnx")
    return several


def test_an_ambiguous_name_says_which_models_it_fits(ambiguous: Any) -> None:
    code, out, _ = ambiguous("net.onnx", "--baseline", "both.json", *UNIT)
    assert code == 2
    assert out.startswith("NOT JUDGED net.onnx: there is nothing to compare it with\n")
    assert (
        "its name fits several models of the baseline both.json: m/net.onnx, n/net.onnx; "
        "give a longer path that ends like one of them, such as m/net.onnx" in out
    )
    assert "not in the baseline" not in out
    assert list(advised(out)) == ["to add it"]


def test_an_ambiguous_name_says_what_to_write(ambiguous: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("n")
    code, out, _ = ambiguous("net.onnx", "--baseline", "../both.json", *UNIT)
    assert code == 2
    written = out.split("; write ")[1].split(" for n/net.onnx\n")[0]
    assert written == "../n/net.onnx"
    code, out, _ = ambiguous(written, "--baseline", "../both.json", *UNIT)
    assert (code, out.split(":")[0]) == (0, "SAME FUNCTION ../n/net.onnx")


def test_recording_an_ambiguous_name_says_that_it_is_new(ambiguous: Any) -> None:
    code, out, err = ambiguous("net.onnx", "--baseline", "both.json", *UNIT, "--update-baseline")
    assert (code, out.split(":")[0]) == (0, "RECORDED net.onnx")
    assert "net.onnx is recorded as a new model: its name fits several models of the baseline both.json" in err


def test_without_a_baseline_nothing_is_judged(several: Any) -> None:
    code, out, _ = several("m/net.onnx", "--baseline", "none.json", *UNIT)
    assert code == 2
    assert out.startswith("NOT JUDGED m/net.onnx: there is nothing to compare it with\n")
    code, out, _ = several("m/net.onnx", "m/other.onnx", "--baseline", "none.json", *UNIT)
    assert (code, out.splitlines()[-1]) == (2, "NOT JUDGED: 2 of 2 models could not be judged")


def test_no_command_names_a_file_that_is_not_there(several: Any) -> None:
    code, out, _ = several("absent.onnx", "--baseline", "gain.json", *UNIT)
    assert (code, advised(out)) == (2, {})
    assert json_of(several, "absent.onnx", "--baseline", "gain.json", *UNIT)["commands"]["inspect"] is None


# ------------------------------------------------------------------------------------- what was recorded
def test_writing_a_baseline_says_what_became_of_each_model(several: Any, folder: Path) -> None:
    arguments = ("m", "--baseline", "gain.json", *UNIT, "--update-baseline")
    shutil.copy(folder / "a.onnx", "m/third.onnx")
    code, out, err = several(*arguments)
    assert (code, err) == (0, "wrote gain.json: 3 models\n")
    lines = out.splitlines()
    assert lines[0].startswith("ACCEPTED m/net.onnx: ")
    assert "its answers differ by" in lines[0]
    assert "(same top class on all 48 synthetic images)" in lines[0]
    assert lines[0].endswith("; replaced in gain.json")
    assert lines[1:] == [
        "UNCHANGED m/other.onnx: gain.json keeps its records",
        "RECORDED m/third.onnx: new in gain.json, compared with nothing",
        "",
        "ACCEPTED: 3 models: 1 accepted, 1 recorded, 1 unchanged",
    ]
    code, out, _ = several(*arguments, "--format", "json")
    document = json.loads(out)
    assert (document["verdict"], document["exit_code"]) == ("pass", 0)
    assert [(model["verdict"], model["renewal"]) for model in document["models"]] == [("pass", "unchanged")] * 3
    assert several(*arguments, "--format", "github")[1] == "UNCHANGED: 3 models\n"


def test_a_baseline_that_is_not_written_records_nothing(several: Any) -> None:
    before = Path("gain.json").read_text()
    arguments = ("m/other.onnx", "absent.onnx", "--baseline", "gain.json", *UNIT, "--update-baseline")
    code, out, _ = several(*arguments)
    assert code == 2
    assert "NOT WRITTEN m/other.onnx: gain.json is left as it is, because not every model passed" in out
    assert not any(word in out for word in ("PASS", "RECORDED", "ACCEPTED"))
    assert Path("gain.json").read_text() == before


# ------------------------------------------------------------------------------------- which layers
def commit(*files: str) -> None:
    own = ["-c", "user.name=n", "-c", "user.email=n@localhost", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", *files], [*own, "commit", "-q", "-m", "models"]):
        subprocess.run(["git", *words], check=True)


def layers_command(run: Any) -> tuple[str, str]:
    """(what for, command line) of the layers of m/net.onnx."""
    code, out, _ = run("m/net.onnx", "--baseline", "gain.json", *UNIT)
    assert code == 3
    purposes = ("to see layers", "with the old file")
    (line,) = (line for line in out.splitlines() if line.startswith(tuple(f"  {purpose}" for purpose in purposes)))
    return line[2:20].strip(), line[20:]


def test_the_layers_are_compared_with_the_file_that_git_has(
    several: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shutil.copy(folder / "a.onnx", "m/net.onnx")
    commit("m", "gain.json")
    shutil.copy(folder / "shaken.onnx", "m/net.onnx")
    old = tmp_path / "old_net.onnx"
    purpose, line = layers_command(several)
    assert purpose == "to see layers"
    show, _, diff = line.partition(" && ")
    assert show == f"git show HEAD:./m/net.onnx > {old}"
    assert diff == f"onnxgain diff {old} m/net.onnx --preprocess unit --layers"
    subprocess.run(show, shell=True, check=True)
    assert old.read_bytes() == (folder / "a.onnx").read_bytes()
    # The new file is committed: the old one is found further back.
    commit("m")
    purpose, line = layers_command(several)
    assert purpose == "to see layers"
    assert "git show HEAD:" not in line
    old.unlink()
    subprocess.run(line.partition(" && ")[0], shell=True, check=True)
    assert old.read_bytes() == (folder / "a.onnx").read_bytes()


def test_a_pointer_of_git_lfs_is_resolved(several: Any, folder: Path) -> None:
    digest = hashlib.sha256((folder / "a.onnx").read_bytes()).hexdigest()
    size = (folder / "a.onnx").stat().st_size
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n"
    Path("m/net.onnx").write_text(pointer)
    commit("m")
    shutil.copy(folder / "shaken.onnx", "m/net.onnx")
    assert layers_command(several)[1].startswith("git show HEAD:./m/net.onnx | git lfs smudge > ")


def test_without_git_the_layers_need_the_old_file(several: Any) -> None:
    assert layers_command(several) == (
        "with the old file", "onnxgain diff OLD.onnx m/net.onnx --preprocess unit --layers",
    )  # fmt: skip
    # Tracked, but never as the baseline has it.
    commit("m", "gain.json")
    assert layers_command(several)[0] == "with the old file"


# ------------------------------------------------------------------------------------- on a narrow terminal
@pytest.mark.parametrize("width", [80, 100])
def test_lines_are_wrapped_below_their_text_on_a_terminal(
    width: int, several: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = narrow(several, width, monkeypatch)
    lines = text.splitlines()
    commands = [line for line in lines if "onnxgain diff" in line or "onnxgain gate" in line]
    assert len(commands) == 3
    assert all(len(line) <= width for line in lines if line not in commands)
    first = next(number for number, line in enumerate(lines) if line.startswith("  spectrum "))
    assert lines[1].startswith("       ") or first == 1
    piped = several("m/net.onnx", "--baseline", "gain.json", *UNIT)[1]
    assert text.split() == piped.split()


def narrow(run: Any, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What is printed on a terminal of a width."""
    import onnxgain.report.text.gate_table as table
    from onnxgain.report.text.formatting import new_console

    with monkeypatch.context() as patch:
        patch.setattr(table, "new_console", lambda colour, width=0, narrow=width: new_console(False, width=narrow))
        text = run("m/net.onnx", "--baseline", "gain.json", *UNIT)[1]
        assert isinstance(text, str)
        return text
