"""`gate --init`: the files that it writes for a repository, its messages, and that it overwrites nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

import onnxgain
from onnxgain.commands import gate_init
from onnxgain.commands.cli import cli
from onnxgain.commands.gate_config import _NOT_CONFIGURED, configurable, load_config
from onnxgain.commands.gate_workflows import WHEEL, github_workflow, gitlab_job, is_plain
from onnxgain.commands.parameters import ByteSize, Draws, Factor, ImageShape, Numbers
from onnxgain.commands.toml_text import toml_text
from tests.support import models

ROOT = Path(__file__).parents[2]
GATE = cli.commands["gate"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """A repository as the current folder, with two models in a subfolder."""
    folder = tmp_path / "repository"
    (folder / "models").mkdir(parents=True)
    (folder / ".git").mkdir()
    for number, name in enumerate("ab"):
        models.save(models.conv_net(margin=float(number)), folder / "models" / f"{name}.onnx")
    monkeypatch.chdir(folder)
    return folder


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts}


def configuration() -> Any:
    return load_config(None, GATE, click.Context(GATE))


def test_written_configuration_passes_the_gate(repository: Path, run: Any) -> None:
    before = files(repository)
    code, out, error = run("gate", "--init")
    assert (code, error) == (0, "")
    assert files(repository) - before == {"onnxgain.toml", "gain.json", ".github/workflows/onnxgain.yml"}
    assert "  onnxgain.toml                    gates models/\n" in out
    assert "the baseline: gain and answers of 2 models" in out
    assert "assumed:\n  this folder is the whole repository\n  GitHub will run the gate, with Python 3.12\n" in out
    assert "models/a.onnx" in out and "nothing in the model declares one" in out
    assert "run the gate here" in out and "onnxgain gate\n" in out
    assert (repository / ".github/workflows/onnxgain.yml").read_text() == github_workflow()
    assert run("gate")[0] == 0
    models.save(models.conv_net(margin=3.0), repository / "models" / "new.onnx")
    assert run("gate")[0] == 2, "a model that is not in the baseline is not passed over"


def test_existing_files_are_named_and_nothing_is_written(repository: Path, run: Any) -> None:
    for name in ("gain.json", ".github/workflows/onnxgain.yml"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("mine")
    before = {name: (repository / name).read_bytes() for name in files(repository)}
    code, out, error = run("gate", "--init")
    assert (code, out) == (2, "")
    assert error == (
        "error: gate --init: gain.json, .github/workflows/onnxgain.yml are there already, and nothing is overwritten; "
        "edit what is there, or delete it and run this again\n"
    )
    assert {name: (repository / name).read_bytes() for name in files(repository)} == before


def test_dangling_link_counts_as_an_existing_file(repository: Path, run: Any, tmp_path: Path) -> None:
    (repository / "onnxgain.toml").symlink_to(tmp_path / "elsewhere.toml")
    assert "onnxgain.toml is there already" in run("gate", "--init")[2]
    assert not (tmp_path / "elsewhere.toml").exists()


def test_configuration_in_a_parent_folder_counts_as_existing(repository: Path, run: Any) -> None:
    (repository / "pyproject.toml").write_text("[tool.onnxgain.gate]\nmax-gain = 3\n")
    assert "pyproject.toml is there already, and nothing is overwritten" in run("gate", "--init")[2]


def test_an_empty_repository(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("gate", "--init") == (
        2,
        "",
        "error: gate --init: there is no .onnx file in this folder or below; export a model and run this again; "
        "`onnxgain demo` shows what a gate does\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_gated_are_left_out_with_the_reason(repository: Path, run: Any) -> None:
    (repository / "models" / "text.onnx").write_text("no model")
    models.save(models.dead_relu(), repository / "models" / "dead.onnx")
    for folder in ("env/lib", "node_modules/x"):
        (repository / folder).mkdir(parents=True)
        models.save(models.conv_net(), repository / folder / "other.onnx")
    (repository / "env" / "pyvenv.cfg").touch()
    code, out, _ = run("gate", "--init")
    assert code == 0
    left_out = out.partition("left out:\n")[2].partition("next:")[0].splitlines()
    assert [line.split(":")[0].strip() for line in left_out] == ["models/dead.onnx", "models/text.onnx"]
    assert "not an ONNX model" in left_out[1]
    assert "to gate the rest" not in out
    assert configuration().models == ("models/a.onnx", "models/b.onnx")
    assert run("gate")[0] == 0


def test_what_was_left_out_is_added_as_the_output_says(repository: Path, run: Any) -> None:
    models.save(models.mlp(), repository / "models" / "mlp.onnx")
    out = run("gate", "--init")[1]
    assert "models/mlp.onnx: the image is flattened in 'X' float[?, 49]; say its shape with --image-shape" in out
    assert "  to gate the rest too, add it to onnxgain.toml with image-shape, then   onnxgain gate models/mlp.o" in out
    text = (repository / "onnxgain.toml").read_text()
    listed = text.replace('"models/b.onnx"]', '"models/b.onnx", "models/mlp.onnx"]')
    assert listed != text
    (repository / "onnxgain.toml").write_text(
        listed + '\n[[gate.overrides]]\nmatch = "mlp.onnx"\nimage-shape = "1x7x7"\n'
    )
    code, out, error = run("gate", "models/mlp.onnx", "--update-baseline")
    assert code == 0, out + error
    code, out, error = run("gate")
    assert code == 0 and "3 models passed" in out, out + error


def test_none_of_the_models_that_are_named_is_left_out(repository: Path, run: Any) -> None:
    (repository / "models" / "text.onnx").write_text("no model")
    before = files(repository)
    code, out, error = run("gate", "--init", "models/a.onnx", "models/text.onnx")
    assert (code, out, files(repository)) == (2, "", before)
    assert "warning: models/text.onnx: not an ONNX model" in error
    assert "error: gate --init: 1 of 2 models cannot be gated, so nothing was written" in error
    assert run("gate", "--init", "models/none.onnx")[0] == 2
    assert files(repository) == before


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_files_ignored_by_git_are_left_out_and_no_program_of_the_repository_runs(repository: Path, run: Any) -> None:
    (repository / ".git").rmdir()
    subprocess.run(["git", "init", "-q", "."], check=True)
    program = repository / "program"
    program.write_text(f"#!/bin/sh\ntouch {repository}/ran\n")
    program.chmod(0o755)
    subprocess.run(["git", "config", "core.fsmonitor", str(program)], check=True)
    (repository / ".gitignore").write_text("b.onnx\nc.onnx\n")
    models.save(models.conv_net(margin=2.0), repository / "models" / "c.onnx")
    (repository / "models" / "c.onnx.dvc").touch()
    out = run("gate", "--init")[1]
    assert "  models/b.onnx: git ignores it\n  models/c.onnx: DVC has it, not git" in out
    assert configuration().models == ("models/a.onnx",)
    assert not (repository / "ran").exists()


@pytest.mark.parametrize(
    ("signs", "written"),
    [
        ([".gitlab-ci.yml"], {".gitlab/onnxgain.yml"}),
        ([".gitlab/CODEOWNERS"], {".gitlab-ci.yml"}),
        ([".gitlab-ci.yml", ".github/workflows/other.yml"], {".gitlab/onnxgain.yml", ".github/workflows/onnxgain.yml"}),
        ([".github/workflows/other.yml"], {".github/workflows/onnxgain.yml"}),
    ],
)
def test_host_is_detected_from_its_files(signs: list[str], written: set[str], repository: Path, run: Any) -> None:
    for name in signs:
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("mine")
    code, out, _ = run("gate", "--init")
    assert code == 0
    assert {name for name in files(repository) if name.endswith(".yml") and name not in signs} == written
    assert all((repository / name).read_text() == "mine" for name in signs)
    assert ("include: {local: .gitlab/onnxgain.yml}" in out) == (".gitlab/onnxgain.yml" in written)


def test_subfolder_of_a_repository(repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "part").mkdir()
    shutil.move(repository / "models", repository / "part" / "models")
    monkeypatch.chdir(repository / "part")
    code, out, _ = run("gate", "--init")
    assert code == 0
    assert files(repository) >= {"part/onnxgain.toml", "part/gain.json", ".github/workflows/onnxgain.yml"}
    text = (repository / ".github/workflows/onnxgain.yml").read_text()
    assert "    defaults:\n      run:\n        working-directory: part\n" in text
    assert "../.github/workflows/onnxgain.yml" in out
    assert run("gate")[0] == 0


def test_folder_name_with_shell_syntax_is_not_written_into_a_workflow(
    repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = repository / "${{ x }}"
    part.mkdir()
    shutil.move(repository / "models", part / "models")
    monkeypatch.chdir(part)
    code, _, error = run("gate", "--init")
    assert code == 2 and "run it in the root of the repository" in error
    assert not (repository / ".github").exists()
    assert [name for name in ("a b", "$(x)", "a'b", "-x", "a;b", "a\nb", "a#b", "a:b") if is_plain(name)] == []


def test_wheel_in_the_repository_is_installed(repository: Path, run: Any) -> None:
    (repository / "wheels").mkdir()
    (repository / "wheels" / "onnxgain-9.9-py3-none-any.whl").touch()
    out = run("gate", "--init")[1]
    assert "pip wheel" not in out
    text = (repository / ".github/workflows/onnxgain.yml").read_text()
    assert text == github_workflow("wheels/onnxgain-9.9-py3-none-any.whl")


def test_options_go_into_the_configuration(repository: Path, run: Any) -> None:
    given = "--max-change 0.5 --per-channel --stimulus impulse --stimulus noise:seed=1 --image-shape 3x12x10"
    given += " --mean 0.5,0.5,0.5 --std 1,1,1 --scale 1/250 --memory-limit 2G --jobs 1 --baseline main.json"
    assert run("gate", "--init", *given.split())[0] == 0
    found = configuration()
    assert found.run == {"memory_limit": 2 * 10**9}
    assert found.defaults == {
        "baseline": "main.json", "max_change": 0.5, "per_channel": True, "stimuli": ("impulse", "noise:seed=1"),
        "image_shape": (3, 12, 10), "mean": (0.5, 0.5, 0.5), "std": (1.0, 1.0, 1.0),
        "scale": 0.004,
    }  # fmt: skip
    assert run("gate")[0] == 0


def test_every_option_round_trips_through_the_configuration(repository: Path) -> None:
    examples: dict[type, tuple[Any, Any]] = {
        Numbers: ((0.5, 1.0), (0.5, 1.0)), ImageShape: ((3, 8, 8), (3, 8, 8)), ByteSize: ("2000", 2000),
        Draws: ("8", 8), Factor: ("1/4", 0.25), click.types.IntParamType: (3, 3),
        click.types.FloatParamType: (0.25, 0.25),
    }  # fmt: skip
    for key, option in configurable(GATE).items():
        kind = next((k for k in examples if isinstance(option.type, k)), None)
        if option.is_flag:
            written, read = True, True
        elif option.multiple:
            written, read = ("in=1", "in=2"), ("in=1", "in=2")
        elif kind is not None:
            written, read = examples[kind]
        elif isinstance(option.type, click.Choice):
            written = read = option.type.choices[-1]
        else:
            written = read = 'a "b" \\ é'
        (repository / "onnxgain.toml").write_text(f"[gate]\n{toml_text({key: written})}")
        found = configuration()
        assert {**found.defaults, **found.run} == {option.name: read}, key


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--update-baseline", "--update-baseline: has no meaning with --init"),
        ("--report=r.html", "--report: has no meaning with --init"),
        ("--write=junit=g.xml", "--write: has no meaning with --init"),
        ("--out=r.txt", "--out: has no meaning with --init"),
        ("--custom-ops=x.so", "--custom-ops: cannot stand in a configuration"),
        ("--baseline=../b.json", "--baseline ../b.json: is outside this folder"),
    ],
)
def test_options_that_cannot_be_combined_with_init(option: str, says: str, repository: Path, run: Any) -> None:
    before = files(repository)
    code, _, error = run("gate", "--init", option)
    assert (code, files(repository)) == (2, before)
    assert says in error


def test_an_interruption_leaves_nothing(repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxgain.commands import gating

    before = files(repository)
    monkeypatch.setattr(gating, "run_batch", lambda *_: ([], True))
    assert run("gate", "--init") == (2, "", "interrupted\n")
    assert files(repository) == before


@pytest.mark.parametrize("fails", range(2))
def test_unwritable_files_leave_nothing(
    fails: int, repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = files(repository), []

    def write(path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) > fails:
            raise onnxgain.OnnxgainError("cannot write: full", where=str(path))
        path.write_text(text)

    monkeypatch.setattr(gate_init, "atomic_write", write)
    assert run("gate", "--init")[0] == 2
    assert files(repository) == before
    assert not (repository / ".github").exists()


def test_machines_and_programs_get_the_results(repository: Path, run: Any) -> None:
    code, out, error = run("gate", "--init", "--format", "json")
    assert code == 0 and error.startswith("wrote:\n")
    assert json.loads(out)["counts"]["pass"] == 2
    for name in ("onnxgain.toml", "gain.json", ".github/workflows/onnxgain.yml"):
        (repository / name).unlink()
    assert [result.verdict for result in onnxgain.gate(init=True)] == ["pass", "pass"]


def test_docs_page_shows_the_written_files() -> None:
    text = (ROOT / "onnxgain" / "docs" / "gate.md").read_text(encoding="utf-8")
    assert f"# {gate_init.GITHUB}\n{github_workflow()}```" in text
    assert f"# {gate_init.GITLAB}\n{gitlab_job()}```" in text
    assert WHEEL in text


def test_init_cannot_be_configured() -> None:
    assert "init" in _NOT_CONFIGURED
