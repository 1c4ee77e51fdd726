"""`gate --init`: after its next steps, as printed, another checkout has everything that the gate reads."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from onnxgain.commands import gate_commit, gate_init, own_package
from onnxgain.commands.own_package import package_place
from tests.support import models

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

OWN = "git -c user.name=n -c user.email=n@localhost -c commit.gpgsign=false"


def shell(line: str) -> None:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """An empty repository as the current folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    shell("git init -q -b main .")
    return folder


def save(path: str | Path, *, margin: float = 0.0, external: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    model = models.conv_net(margin=margin)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=f"{Path(path).name}.data", size_threshold=0)
    else:
        models.save(model, Path(path))


def steps(out: str) -> list[tuple[str, str]]:
    """(purpose, command) of the next steps, as printed."""
    lines = out.partition("next:\n")[2].splitlines()
    pairs = [re.split(r" {3,}", line.strip(), maxsplit=1) for line in lines]
    return [(purpose, command) for purpose, command in pairs]


def follow(run: Any, *arguments: str) -> dict[str, str]:
    """Set up the gate and do literally what it prints. Returns the commands by purpose."""
    code, out, error = run("gate", "--init", *arguments)
    assert code == 0, error
    found = steps(out)
    for purpose, command in found:
        words = shlex.split(command)
        if purpose.startswith(("to gate the rest", "add to", "DVC")):
            continue
        if words[0] == "onnxgain":
            assert run(*words[1:])[0] == 0, command
        elif words[0] == "pip":
            place = Path(words[words.index("-w") + 1]) / Path(gate_init.WHEEL).name
            place.parent.mkdir()
            place.write_text("wheel")
        else:
            shell(command.replace("git commit", f"{OWN} commit", 1))
    return dict(found)


def passes_elsewhere(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str = "") -> str:
    """Clone the repository as a workflow does, and run the gate there. Returns what it prints."""
    clone = tmp_path / "clone"
    shell(f"git clone -q {shlex.quote(str(tmp_path / 'repository'))} {shlex.quote(str(clone))}")
    assert (clone / ".github/workflows/onnxgain.yml").is_file()
    assert (clone / below / gate_init.WHEEL).is_file()
    monkeypatch.chdir(clone / below)
    code, out, error = run("gate")
    assert code == 0, out + error
    assert "SAME FUNCTION" in out
    return str(out)


def commit_all() -> None:
    shell(f"git add -A && {OWN} commit -q -m models")


def untracked(folder: Path) -> None:
    save("models/a.onnx")
    save("models/deep/b.onnx", margin=1, external=True)


def tracked(folder: Path) -> None:
    untracked(folder)
    commit_all()


def modified(folder: Path) -> None:
    tracked(folder)
    save("models/a.onnx", margin=3)


def awkward_names(folder: Path) -> None:
    for name in ("my models/a b.onnx", "it's.onnx", "Übung/$HOME.onnx", "[ab]*.onnx", "-x.onnx", "new;ls.onnx"):
        save(folder / name, external=name[0] == "m")


def with_companions(folder: Path) -> None:
    save("models/a.onnx")
    preprocessing = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 255}
    Path("models/preprocessor_config.json").write_text(json.dumps(preprocessing))
    Path("models/config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}}))
    Path(".gitignore").write_text("*.json\n*.whl\n")


def through_links(folder: Path) -> None:
    save("store/v1/a.onnx", external=True)
    Path("models").mkdir()
    Path("models/folder").symlink_to("../store/v1")
    Path("models/file.onnx").symlink_to("../store/v2.onnx")
    save("store/v2.onnx")


def many(folder: Path) -> None:
    for number in range(8):
        save(f"models/{number}.onnx", margin=number)


@pytest.mark.parametrize(
    "prepare", [untracked, tracked, modified, awkward_names, with_companions, through_links, many],
    ids=lambda prepare: prepare.__name__,
)  # fmt: skip
def test_everything_is_in_another_checkout(
    prepare: Callable[[Path], None], repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(repository)
    follow(run)
    passes_elsewhere(run, tmp_path, monkeypatch)


def test_only_what_git_lacks_is_added(repository: Path, run: Any) -> None:
    tracked(repository)
    assert ".onnx" not in follow(run)["add what the workflow needs"]


def test_a_changed_model_is_added(repository: Path, run: Any) -> None:
    modified(repository)
    added = follow(run)["add what the workflow needs"]
    assert "models/a.onnx" in added and "b.onnx" not in added


def test_a_folder_stands_for_many_files_if_nothing_else_is_in_it(repository: Path, run: Any) -> None:
    many(repository)
    assert " models/ " in follow(run)["add what the workflow needs"]
    for name in ("onnxgain.toml", "gain.json", ".github/workflows/onnxgain.yml"):
        (repository / name).unlink()
    shutil.rmtree(repository / ".git")
    shutil.rmtree(repository / "tools")
    shell("git init -q -b main .")
    Path("models/secret.txt").touch()
    assert " models/0.onnx " in follow(run)["add what the workflow needs"]


def test_named_models_that_git_ignores_are_forced(
    repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".gitignore").write_text("models/\n*.data\n")
    untracked(repository)
    found = follow(run, "models/a.onnx", "models/deep/b.onnx")
    assert found["add what it needs although git ignores it"] == (
        "git add -f -- models/a.onnx models/deep/b.onnx models/deep/b.onnx.data"
    )
    passes_elsewhere(run, tmp_path, monkeypatch)


def test_a_model_whose_weights_git_ignores_is_left_out(
    repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".gitignore").write_text("*.data\n")
    untracked(repository)
    out = run("gate", "--init")[1]
    assert "  models/deep/b.onnx: git ignores models/deep/b.onnx.data, with its weights\n" in out
    assert "to gate the rest" not in out


def test_models_of_another_repository_inside_are_left_out(repository: Path, run: Any) -> None:
    save("a.onnx")
    save("vendor/net/b.onnx")
    shell("git init -q vendor/net")
    out = run("gate", "--init")[1]
    assert "vendor/net/b.onnx: it lies in another repository, vendor/net, which the workflow does not check out" in out
    for name in ("onnxgain.toml", "gain.json", ".github/workflows/onnxgain.yml"):
        Path(name).unlink()
    assert run("gate", "--init", "vendor/net/b.onnx")[0] == 2


def test_a_folder_that_is_no_repository_becomes_one(
    repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(".git")
    untracked(repository)
    found = follow(run)
    assert found["make this folder a repository"] == "git init"
    passes_elsewhere(run, tmp_path, monkeypatch)


def test_a_part_of_a_repository(repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "part").mkdir()
    monkeypatch.chdir(repository / "part")
    untracked(repository)
    follow(run)
    passes_elsewhere(run, tmp_path, monkeypatch, "part")


def test_a_photograph_of_the_configuration_is_added(
    repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untracked(repository)
    Path("photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8)).save("photos/cat.png")
    follow(run, "models/a.onnx", "--image", "photos/cat.png")
    passes_elsewhere(run, tmp_path, monkeypatch)


def test_what_dvc_has_is_pulled_by_the_workflow(repository: Path, run: Any) -> None:
    save("big.onnx")
    Path("big.onnx.dvc").touch()
    Path(".gitignore").write_text("/big.onnx\n")
    found = dict(steps(run("gate", "--init", "big.onnx")[1]))
    assert "pip install dvc && dvc pull big.onnx" in found.values()
    added = found["add what the workflow needs"].split()
    assert "big.onnx.dvc" in added and "big.onnx" not in added


def test_what_could_be_gated_with_an_option_is_added_by_the_last_step(
    repository: Path, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("models/a.onnx")
    models.save(models.mlp(), Path("models/m l p.onnx"))
    Path("models/text.onnx").write_text("no model")
    purpose, command = list(follow(run).items())[-1]
    assert purpose == "to gate the rest too, add it to onnxgain.toml with image-shape, then"
    file = Path("onnxgain.toml")
    text = file.read_text().replace('a.onnx"]', 'a.onnx", "models/m l p.onnx"]')
    file.write_text(f'{text}\n[[gate.overrides]]\nmatch = "m*p.onnx"\nimage-shape = "1x7x7"\n')
    update, _, add = command.partition(" && ")
    assert run(*shlex.split(update)[1:])[0] == 0
    shell(f"{add} && {OWN} commit -q -m more")
    assert "2 models passed" in passes_elsewhere(run, tmp_path, monkeypatch)


# ------------------------------------------------------------------------------------------------ Git LFS
def test_large_files_are_put_into_lfs(repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_commit, "LARGEST", 1000)
    untracked(repository)
    found = dict(steps(run("gate", "--init")[1]))
    tracking = found["put files of over 100 MB into Git LFS"]
    assert tracking.startswith("git lfs track ") and "models/deep/b.onnx.data" in tracking.split()
    assert ".gitattributes" in found["add what the workflow needs"].split()


def test_files_that_lfs_has_need_nothing(repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_commit, "LARGEST", 1000)
    save("a.onnx")
    content = Path("a.onnx").read_bytes()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\n"
    Path("a.onnx").write_text(f"{pointer}size {len(content)}\n")
    commit_all()
    Path("a.onnx").write_bytes(content)
    Path(".gitattributes").write_text("*.onnx filter=lfs diff=lfs merge=lfs -text\n")
    found = dict(steps(run("gate", "--init")[1]))
    assert "a.onnx" not in found.get("put files of over 100 MB into Git LFS", "").split()
    added = found["add what the workflow needs"].split()
    assert ".gitattributes" in added and "a.onnx" not in added


# ------------------------------------------------------------------------------------------------ the wheel
def test_the_wheel_is_made_from_where_this_package_comes_from() -> None:
    assert package_place() == str(Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("origin", "place"),
    [
        ({"url": "https://h.org/o.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "git+https://h.org/o.git@abc"),
        ({"url": "https://me:secret@h.org/o.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, None),
        ({"url": "file:///no/such/folder", "dir_info": {}}, None),
        ({"url": Path(__file__).parent.as_uri(), "dir_info": {}}, str(Path(__file__).parent)),
        ({}, None),
    ],
)
def test_an_installed_package_knows_its_origin(origin: dict[str, Any], place: str | None) -> None:
    assert own_package._installed_from(origin) == place


def test_where_the_origin_is_not_known_the_placeholder_is_explained(
    repository: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_init, "package_place", lambda: None)
    save("a.onnx")
    found = dict(steps(run("gate", "--init")[1]))
    assert found["make the wheel that the workflow installs; write the folder of onnxgain's source for CHECKOUT"] == (
        "pip wheel -q --no-deps -w tools CHECKOUT"
    )


# ------------------------------------------------------------------------------------------------ the configuration
def test_a_folder_with_other_models_is_not_named_as_a_whole(repository: Path, run: Any) -> None:
    untracked(repository)
    assert "  onnxgain.toml                    gates models/a.onnx\n" in run("gate", "--init", "models/a.onnx")[1]
    assert run("gate")[0] == 0


@pytest.mark.parametrize("given", ["--image=../cat.png", "--timeout=7200", "--input=X=../x.npy"])
def test_what_a_configuration_may_not_hold_is_refused_before_anything_is_written(
    given: str, repository: Path, run: Any
) -> None:
    save("a.onnx")
    Path("../cat.png").touch()
    Path("../x.npy").touch()
    code, _, error = run("gate", "--init", given)
    assert code == 2 and error.startswith(f"error: {given.partition('=')[0]}: "), error
    assert not Path("gain.json").exists() and not Path("onnxgain.toml").exists()
