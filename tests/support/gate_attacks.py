"""A table of attempts to make a gate exit with 0 for a model that it did not judge.

Every attempt prepares a folder with `good.onnx`, `bad.onnx` (with another gain) and `base.json` (the record of
`good.onnx`), and returns arguments for `onnxgain gate`.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.support import models
from tests.support.gate_attack_kinds import (
    BASE,
    GAIN_BETWEEN,
    WIDE,
    Arguments,
    Attack,
    changed,
    configured,
    holding,
    in_folder,
    linked,
    named,
    of_model,
)


def _production_is_another(link: Callable[[Path, Path], object]) -> Attack:
    """The release's name links to a model that passes under its own name; the record is that of another model."""

    def attack(folder: Path) -> Arguments:
        document = json.loads((folder / "base.json").read_text())
        other = json.loads(json.dumps(document["records"][0]))
        other["model"] |= {"path": "production.onnx", "name": "production.onnx"}
        other["gain"] = {"channels": [g + 5.0 for g in other["gain"]["channels"]], "mean": other["gain"]["mean"] + 5.0}
        other.pop("fingerprint", None)
        document["records"].append(other)
        (folder / "two.json").write_text(json.dumps(document))
        link(folder / "good.onnx", folder / "production.onnx")
        return ["good.onnx", "production.onnx", "--baseline", "two.json"]

    return attack


def _overridden_link(folder: Path) -> Arguments:
    (folder / "production.onnx").symlink_to("good.onnx")
    (folder / "onnxgain.toml").write_text(
        "[gate]\nmax-gain = 1000\n[[gate.overrides]]\nmatch = 'production.onnx'\nmax-gain = -100\n"
    )
    return ["good.onnx", "production.onnx"]


def _folder_link(folder: Path) -> Arguments:
    (folder / "stored").mkdir()
    (folder / "release").mkdir()
    shutil.copy(folder / "good.onnx", folder / "release")
    shutil.copy(folder / "bad.onnx", folder / "stored")
    (folder / "release" / "current").symlink_to("../stored")
    return ["release", "--max-gain", GAIN_BETWEEN]


def _pipe(name: str, *arguments: str) -> Attack:
    def attack(folder: Path) -> Arguments:
        os.mkfifo(folder / name)
        return list(arguments)

    return attack


def _sparse(folder: Path) -> Arguments:
    with (folder / "huge.onnx").open("wb") as stream:
        stream.truncate(30 << 30)
    return ["huge.onnx", *WIDE]


def _external(pointer: bytes | None) -> Attack:
    def attack(folder: Path) -> Arguments:
        path = folder / "ext.onnx"
        onnx.save(models.conv_net(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
        (folder / "w.bin").unlink()
        if pointer is not None:
            (folder / "w.bin").write_bytes(pointer)
        return ["ext.onnx", *WIDE]

    return attack


def _external_outside(folder: Path) -> Arguments:
    path = folder / "ext.onnx"
    onnx.save(models.conv_net(), path, save_as_external_data=True, location="wwww.bin", size_threshold=0)
    path.write_bytes(path.read_bytes().replace(b"wwww.bin", b"../w.bin"))
    return ["ext.onnx", *WIDE]


def _outside(folder: Path) -> Path:
    """A folder beside the repository that contains a model and a baseline."""
    outside = folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    shutil.copy(folder / "good.onnx", outside)
    shutil.copy(folder / "base.json", outside)
    return outside


def reaching_out(text: str, *arguments: str) -> Attack:
    """A configuration that refers to something outside its folder."""

    def attack(folder: Path) -> Arguments:
        outside = _outside(folder)
        (folder / "link.onnx").symlink_to(outside / "good.onnx")
        (folder / "list.txt").write_text(f"{outside / 'good.onnx'}\n")
        (folder / "onnxgain.toml").write_text(text.replace("OUTSIDE", str(outside)))
        return list(arguments)

    return attack


def _configuration_is_a_link(folder: Path) -> Arguments:
    (_outside(folder) / "other.toml").write_text("[gate]\nmax-gain = 1000\nmodels = ['good.onnx']\n")
    (folder / "onnxgain.toml").symlink_to("../outside/other.toml")
    return []


def _configuration_above(folder: Path) -> Arguments:
    (folder.parent / "onnxgain.toml").write_text("[gate]\nmax-gain = 1000\n")
    (folder / ".git").mkdir()
    return ["good.onnx"]


def _weights(value: float) -> onnx.ModelProto:
    model = models.conv_net()
    tensor = model.graph.initializer[4]
    filled = np.full_like(numpy_helper.to_array(tensor), value)
    tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))
    return model


def _blind_to_red() -> onnx.ModelProto:
    model = models.conv_net()
    tensor = model.graph.initializer[0]
    seen = numpy_helper.to_array(tensor) * np.array([0, 1, 1], np.float32)[:, None, None]
    tensor.CopyFrom(numpy_helper.from_array(seen.astype(np.float32), tensor.name))
    return model


def _saved(edit: Callable[[dict[str, Any]], object], *arguments: str) -> Attack:
    def attack(folder: Path) -> Arguments:
        document = json.loads((folder / "base.json").read_text())
        edit(document)
        (folder / "saved.json").write_text(json.dumps(document))
        return ["saved.json", *(arguments or WIDE)]

    return attack


def behind_the_scores(op: str, *constants: np.ndarray, **attributes: Any) -> Attack:
    """The good model with one more operator behind its output."""

    def attack(folder: Path) -> Arguments:
        model = onnx.load(folder / "good.onnx")
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["raw" if output == name else output for output in node.output]
        for number, array in enumerate(constants):
            model.graph.initializer.append(numpy_helper.from_array(array, f"more_{number}"))
        inputs = ["raw", *(f"more_{number}" for number in range(len(constants)))]
        model.graph.node.append(onnx.helper.make_node(op, inputs, [name], "/more", **attributes))
        models.save(model, folder / "odd.onnx")
        return ["odd.onnx", *BASE]

    return attack


def _named_like_a_list(folder: Path) -> Arguments:
    """What a shell makes of *.onnx: the bad model, and a list of the same name that names the good one."""
    (folder / "bad.onnx").rename(folder / "@bad.onnx")
    (folder / "bad.onnx").write_text("good.onnx\n")
    return ["@bad.onnx", *BASE]


def _unlike_in_a_batch(folder: Path) -> Arguments:
    """The good model, whose answers change their sign for more than one image."""
    behind_the_scores("Identity")(folder)
    model = onnx.load(folder / "odd.onnx")
    identity = model.graph.node.pop()
    make = onnx.helper.make_node
    branches = {
        name: onnx.helper.make_graph(
            [make(kind, ["raw"], [name])], name, [], [onnx.helper.make_tensor_value_info(name, 1, None)]
        )
        for name, kind in (("then_branch", "Neg"), ("else_branch", "Identity"))
    }
    for name, value in (("zero", [0]), ("one", [1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.extend(
        [
            make("Shape", ["raw"], ["shape"]),
            make("Gather", ["shape", "zero"], ["size"]),
            make("Greater", ["size", "one"], ["several"]),
            make("If", ["several"], list(identity.output), **branches),
        ]
    )
    models.save(model, folder / "odd.onnx")
    return ["odd.onnx", *BASE]


def _two_of_a_name(folder: Path) -> Arguments:
    for name, model in (("x", "good.onnx"), ("y", "bad.onnx")):
        (folder / name).mkdir()
        shutil.copy(folder / model, folder / name / "good.onnx")
    return ["x/good.onnx", "y/good.onnx", *BASE]


def _other_models_in_baseline(folder: Path) -> Arguments:
    document = json.loads((folder / "base.json").read_text())
    for name in ("one.onnx", "two.onnx"):
        record = json.loads(json.dumps(document["records"][0]))
        record["model"] |= {"path": name, "name": name}
        document["records"].append(record)
    del document["records"][0]
    (folder / "others.json").write_text(json.dumps(document))
    return ["good.onnx", "--baseline", "others.json"]


def _first(edit: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    return lambda document: edit(document["records"][0])


def _output_folder_is_a_link(folder: Path) -> Arguments:
    _outside(folder)
    (folder / "results").symlink_to("../outside")
    return ["good.onnx", *WIDE, "-o", "results/gate.md"]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345678\n"
CUSTOM = "[gate]\nmax-gain = 1000\nmodels = ['good.onnx']\n"
DEEP = "[" * 100_000


def _records_for_a_model(models_of_the_configuration: str) -> Attack:
    """The configuration names good records instead of the model, which is damaged."""

    def attack(folder: Path) -> Arguments:
        (folder / "saved.json").write_bytes((folder / "base.json").read_bytes())
        (folder / "list.txt").write_text("saved.json\n")
        (folder / "good.onnx").write_bytes((folder / "bad.onnx").read_bytes())
        (folder / "onnxgain.toml").write_text(f"[gate]\nmodels = [{models_of_the_configuration}]\n")
        return BASE

    return attack


def _loosened(text: str) -> Attack:
    """A configuration beside a damaged model loosens what the command line's baseline asks for."""

    def attack(folder: Path) -> Arguments:
        (folder / "good.onnx").write_bytes((folder / "bad.onnx").read_bytes())
        (folder / "onnxgain.toml").write_text(text)
        return ["good.onnx", *BASE]

    return attack


ATTACKS: dict[str, Attack] = {
    # ------------------------------------------------------------------------------ configurations that loosen
    "saved records in the configuration": _records_for_a_model('"saved.json"'),
    "saved records in a list of the configuration": _records_for_a_model('"@list.txt"'),
    "a fingerprint switched off": _loosened("[gate]\nfingerprint = false\nmax-change = 1000.0\n"),
    "a fingerprint switched off for all": _loosened(
        '[gate]\nmax-change = 1000.0\n[[gate.overrides]]\nmatch = ["*"]\nfingerprint = false\n'
    ),
    # ---------------------------------------------------------------------------------------- other names
    "a link to a model already seen": _production_is_another(lambda old, new: new.symlink_to(old.name)),
    "a hard link to a model already seen": _production_is_another(lambda old, new: new.hardlink_to(old)),
    "a copy of a model already seen": _production_is_another(shutil.copy),
    "a link with a bound of its own": _overridden_link,
    "a linked folder in a release": _folder_link,
    "a link to nothing": linked("odd.onnx", "nowhere.onnx", "odd.onnx", *WIDE),
    "a link to itself": linked("odd.onnx", "odd.onnx", "odd.onnx", *WIDE),
    "a folder that holds only a link to itself": linked("release/loop", ".", "release", *WIDE),
    "two models of a name": _two_of_a_name,
    "in a folder below": in_folder("a/b/bad.onnx"),
    "in capitals": in_folder("bad.ONNX"),
    "a hidden file": in_folder(".bad.onnx"),
    "a line break in its name": in_folder("bad\n.onnx"),
    "control characters in its name": in_folder("\x1b[2Kbad\u202e.onnx"),
    "a name that looks like an option": in_folder("--max-gain.onnx"),
    # --------------------------------------------------------------------------------- arguments of nothing
    "a missing model": named("none.onnx", *WIDE),
    "a missing model beside a good one": named("good.onnx", "none.onnx", *WIDE),
    "a pattern that fits nothing": named("release*.onnx", *WIDE),
    "a pattern that fits nothing beside a good one": named("good.onnx", "rel*/*.onnx", *WIDE),
    "an empty folder": lambda folder: [str((folder / "empty").mkdir() or "empty"), *WIDE],
    "an empty list": holding("list.txt", b"", "@list.txt", *WIDE),
    "a list of remarks": lambda folder: [str((folder / "l.txt").write_text("# good.onnx\n") and "@l.txt"), *WIDE],
    "a list that names a missing model": lambda folder: [
        str((folder / "l.txt").write_text("good.onnx\nnone.onnx\n") and "@l.txt"), *WIDE,
    ],
    "a missing list": named("@none.txt", *WIDE),
    "a model that is named like a list": _named_like_a_list,
    "a list that is a pipe": _pipe("l.txt", "@l.txt", *WIDE),
    "a name that no file can have": named("a\0b.onnx", *WIDE),
    "no model": named(*WIDE),
    # --------------------------------------------------------------------------------------- not a model
    "a pipe": _pipe("pipe.onnx", "pipe.onnx", *WIDE),
    "/dev/null": named("/dev/null", *WIDE),
    "/dev/zero": named("/dev/zero", *WIDE),
    "a link to /dev/zero": linked("odd.onnx", "/dev/zero", "odd.onnx", *WIDE),
    "a file of /proc": named("/proc/self/maps", *WIDE),
    "a sparse file of 30 GB": _sparse,
    "an empty file": holding("odd.onnx", b""),
    "a Git LFS pointer": holding("odd.onnx", LFS),
    "an HTML page": holding("odd.onnx", b"<!DOCTYPE html><html></html>"),
    "a JSON error": holding("odd.onnx", b'{"message":"Not Found"}'),
    "a gzip": lambda folder: holding("odd.onnx", gzip.compress((folder / "good.onnx").read_bytes()))(folder),
    "a model cut short": lambda folder: holding("odd.onnx", (folder / "good.onnx").read_bytes()[:-300])(folder),
    "a model of the runtime's own format": holding("odd.onnx", b"\x1c\0\0\0ORTM" + bytes(64)),
    "noise": holding("odd.onnx", bytes(range(256)) * 20),
    "missing external data": _external(None),
    "external data that is a Git LFS pointer": _external(LFS),
    "external data outside": _external_outside,
    # --------------------------------------------------------------------------------- models without a gain
    "no gradient": of_model(lambda: _weights(0.0)),
    "weights that are not finite": of_model(lambda: _weights(float("nan"))),
    "a dead channel": of_model(_blind_to_red),
    "a dead channel against its own baseline": of_model(_blind_to_red, "--max-gain", "1000", "--per-channel"),
    "another number of classes": of_model(lambda: models.conv_net(classes=7), *BASE, "--same-class"),
    "another image size": of_model(lambda: models.conv_net(size=(16, 16)), *BASE),
    "another number of channels": of_model(lambda: models.conv_net(channels=1), *BASE),
    # ------------------------------------------------------------------------------------------ baselines
    "a missing baseline": named("good.onnx", "--baseline", "none.json"),
    "a baseline that is a pipe": _pipe("pipe.json", "good.onnx", "--baseline", "pipe.json"),
    "a baseline that never ends": named("good.onnx", "--baseline", "/dev/zero"),
    "the model as baseline": named("good.onnx", "--baseline", "good.onnx"),
    "a baseline of no record": changed(lambda document: document["records"].clear()),
    "a baseline of another schema": changed(lambda document: document.update(schema="onnxgain.records/9")),
    "a baseline of a gain that is not a number": changed(_first(lambda r: r["gain"].update(mean=float("nan")))),
    "a baseline without gain": changed(_first(lambda r: r.update(gain={"channels": [None] * 3, "mean": None}))),
    "a baseline of a huge number": changed(_first(lambda r: r["gain"].update(mean=10**400))),
    "a baseline of fewer channels": changed(_first(lambda r: r["gain"].update(channels=[-60.0]))),
    "a baseline of another stimulus": changed(_first(lambda r: r["stimulus"]["parameters"].update(amplitude=1.0))),
    "a baseline of another projection": changed(_first(lambda r: r.update(projection="logit"))),
    "a baseline of another scale": changed(
        _first(lambda r: r["scale"].update(name="raw", mean=[0.0], std=[1.0], scale=1.0, step=[1.0] * 3))
    ),
    "a baseline nested too deeply": holding("deep.json", DEEP.encode(), "good.onnx", "--baseline", "deep.json"),
    "a baseline of other models": _other_models_in_baseline,
    "a changed model": named("bad.onnx", *BASE),
    "classes in another order": behind_the_scores("Gather", np.array([1, 0, 2, 3, 4]), axis=1),
    "class scores without decimals": behind_the_scores("Round"),
    "a class that is masked": behind_the_scores("Add", np.array([[0, 0, -np.inf, 0, 0]], np.float32)),
    "class scores of another sign": behind_the_scores("Neg"),
    "class scores that overflow": behind_the_scores("Div", np.zeros(1, np.float32)),
    "other answers for a batch": _unlike_in_a_batch,
    "a fingerprint that is switched off": configured(
        "[gate]\nmodels = ['bad.onnx']\nbaseline = 'base.json'\nfingerprint = false\n"
    ),
    # --------------------------------------------------------------------------------------------- bounds
    "no bound": named("bad.onnx"),
    "a bound that is not a number": named("bad.onnx", "--max-gain", "nan"),
    "an infinite bound": named("bad.onnx", "--max-gain", "inf"),
    "a change that is not a number": named("bad.onnx", *BASE, "--max-change", "nan"),
    "bounds that exclude all": named("good.onnx", "--min-gain", "0", "--max-gain", "-200"),
    "--same-class is no excuse": named("bad.onnx", *BASE, "--same-class"),
    "--max-score-change is no excuse": named("bad.onnx", *BASE, "--max-score-change", "1"),
    "both are no excuse": named("bad.onnx", *BASE, "--same-class", "--max-score-change", "1"),
    "--no-dead-channel is no excuse": named("bad.onnx", *BASE, "--no-dead-channel"),
    # ------------------------------------------------------------------------------------- configurations
    "a configuration that loads code": configured(CUSTOM + "custom-ops = ['evil.so']\n"),
    "an override that loads code": configured(CUSTOM + "[[gate.overrides]]\nmatch = '*'\ncustom-ops = ['evil.so']\n"),
    "a configuration that moves the cache": configured(CUSTOM + "cache = 'kept'\n"),
    "a baseline outside": reaching_out("[gate]\nmodels = ['good.onnx']\nbaseline = '../outside/base.json'\n"),
    "an absolute baseline outside": reaching_out("[gate]\nmodels = ['good.onnx']\nbaseline = 'OUTSIDE/base.json'\n"),
    "a model outside": reaching_out("[gate]\nmax-gain = 1000\nmodels = ['../outside/good.onnx']\n"),
    "a pattern outside": reaching_out("[gate]\nmax-gain = 1000\nmodels = ['../outside/*.onnx']\n"),
    "a link outside": reaching_out("[gate]\nmax-gain = 1000\nmodels = ['link.onnx']\n"),
    "a link outside that a pattern fits": reaching_out("[gate]\nmax-gain = 1000\nmodels = ['l*.onnx']\n"),
    "a list that leads outside": reaching_out("[gate]\nmax-gain = 1000\nmodels = ['@list.txt']\n"),
    "a URL": configured("[gate]\nmax-gain = 1000\nmodels = ['http://127.0.0.1:9/good.onnx']\n"),
    "an image outside": reaching_out("[gate]\nmax-gain = 1000\nmodels = ['good.onnx']\nimage = ['../outside']\n"),
    "a configuration that is a link": _configuration_is_a_link,
    "a configuration above the repository": _configuration_above,
    "the baseline as model": configured("[gate]\nmodels = ['base.json']\nbaseline = 'base.json'\n"),
    "a configuration of no model": configured("[gate]\nmax-gain = 1000\nmodels = []\n"),
    "a key that is misspelt": configured(CUSTOM + "max-chnage = 1\n"),
    "a day for a model": configured(CUSTOM + "timeout = 86400\n"),
    "a configuration that is not TOML": configured("[gate\n"),
    "a configured bound that is not a number": configured("[gate]\nmodels = ['bad.onnx']\nmax-gain = nan\n"),
    # -------------------------------------------------------------------------------------- saved records
    "saved records of nothing": _saved(lambda document: document["records"].clear()),
    "saved records that are damaged": _saved(_first(lambda r: r.pop("gain"))),
    "saved records of an infinite score": _saved(_first(lambda r: r.update(score=float("inf")))),
    "saved records of no gain": _saved(_first(lambda r: r.update(gain={"channels": [None] * 3, "mean": None}))),
    "saved records that are to be verified": _saved(lambda document: None, "--verified"),
    "saved records of another schema": _saved(lambda document: document.update(schema="other/1")),
    # -------------------------------------------------------------------------------------------- outputs
    "an output upon the model": named("good.onnx", *WIDE, "-o", "good.onnx"),
    "an output upon the baseline": named("good.onnx", *BASE, "--write", "json=base.json"),
    "an output upon a link to the model": linked("out.md", "good.onnx", "good.onnx", *WIDE, "-o", "out.md"),
    "an output through a link that leads out": linked("gate.md", "../victim", "good.onnx", *WIDE, "-o", "gate.md"),
    "an output through a linked folder": _output_folder_is_a_link,
    "two outputs in one file": named("good.onnx", *WIDE, "--write", "json=x", "--write", "junit=x"),
    "an output on a full disk": named("good.onnx", *WIDE, "-o", "/dev/full"),
    "an output in a missing folder": named("good.onnx", *WIDE, "-o", "none/gate.md"),
}  # fmt: skip
