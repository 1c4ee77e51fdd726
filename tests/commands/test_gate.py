"""`onnxgain gate` through the real command line: exit codes and output over bounds, baselines, errors and formats."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import onnx
import pytest
from lxml import etree
from onnx import numpy_helper

from onnxgain.analysis.policy import DEFAULT_MAX_CHANGE, Policy
from onnxgain.analysis.verdict import Check, GateResult
from onnxgain.commands.cli import main
from onnxgain.commands.gate import gate
from onnxgain.commands.gate_config import matches
from onnxgain.measure.record import from_json
from onnxgain.report.reporter import FORMATS, render
from onnxgain.report.text.gate_json import SCHEMA
from onnxgain.report.text.gate_markdown import LENGTH, render_markdown
from onnxgain.report.text.junit import render_junit
from tests.support import models

XSD = etree.XMLSchema(etree.parse(str(Path(__file__).parents[1] / "support" / "junit.xsd")))


def louder(factor: float) -> onnx.ModelProto:
    """The usual small net with the weights of its last layer multiplied."""
    model = models.conv_net()
    return _edited(model, 4, lambda weights: weights * factor)


def dead_channel() -> onnx.ModelProto:
    """The usual small net, but blind to red."""
    return _edited(models.conv_net(), 0, lambda weights: weights * np.array([0, 1, 1])[:, None, None])


def other_class() -> onnx.ModelProto:
    """The usual small net that prefers the first class; its gain at the same class would be as before."""
    return _edited(models.conv_net(), 5, lambda bias: bias + 9.0 * (np.arange(len(bias)) == 0))


def _edited(model: onnx.ModelProto, index: int, edit: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    tensor = model.graph.initializer[index]
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)).astype(np.float32), tensor.name))
    return model


NEAR, SHAKEN = 0.1, 0.3


def shaken(strength: float) -> onnx.ModelProto:
    """The usual small net with noise on the weights of its last layer."""
    noise = np.random.default_rng(0)
    return _edited(models.conv_net(), 4, lambda w: w + strength * w.std() * noise.standard_normal(w.shape))


def turned() -> onnx.ModelProto:
    """The usual small net with its classes one place further."""
    model = _edited(models.conv_net(), 4, lambda weights: np.roll(weights, 1, axis=0))
    return _edited(model, 5, lambda bias: np.roll(bias, 1))


def reexported() -> onnx.ModelProto:
    """The usual small net as another exporter would write it."""
    model = models.conv_net(opset=13)
    model.producer_name = "another"
    return model


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "a.onnx": models.conv_net,
    "again.onnx": reexported,
    "loud.onnx": lambda: louder(1.05),
    "quiet.onnx": lambda: louder(0.95),
    "flip.onnx": other_class,
    "dead.onnx": dead_channel,
    "zero.onnx": models.dead_relu,
    "nan.onnx": lambda: models.with_weights(float("nan")),
    "seven.onnx": lambda: models.conv_net(classes=7),
    "large.onnx": lambda: models.conv_net(size=(14, 10)),
    "grey.onnx": lambda: models.conv_net(channels=1),
    "near.onnx": lambda: shaken(NEAR),
    "shaken.onnx": lambda: shaken(SHAKEN),
    "other.onnx": lambda: shaken(3.0),
    "turned.onnx": turned,
    "several/a.onnx": models.conv_net,
    "several/b.onnx": lambda: louder(1.05),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, baselines, configurations; and in time a cache, so that each model is measured once."""
    folder = tmp_path_factory.mktemp("gate")
    for name, make in MODELS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        models.save(make(), folder / name)
    (folder / "broken.onnx").write_bytes(b"not a model")
    (folder / "text.txt").write_text("not records")
    here = Path.cwd()
    os.chdir(folder)
    try:
        for name, arguments in BASELINES.items():
            with pytest.raises(SystemExit) as raised:
                main(["score", *arguments.split(), "--format", "json", "-o", name])
            assert raised.value.code == 0, name
    finally:
        os.chdir(here)
    good = (folder / "base.json").read_text()
    (folder / "schema.json").write_text(good.replace("onnxgain.records/1", "onnxgain.records/99"))
    (folder / "nan.json").write_text(good.replace(f'"mean": {from_json(good)[0].gain.mean}', '"mean": NaN'))
    (folder / "half.json").write_text(good[: len(good) // 2])
    (folder / "none.json").write_text('{"schema": "onnxgain.records/1", "records": []}')
    (folder / "field.json").write_text(good.replace('"score"', '"scare"'))
    assert (folder / "nan.json").read_text() != good
    for name, text in CONFIGURATIONS.items():
        (folder / name).write_text(text)
    return folder


IMAGENET = "--preprocess imagenet"
BASELINES = {
    "base.json": f"a.onnx {IMAGENET}",
    "assumed.json": "a.onnx",
    "two.json": f"a.onnx {IMAGENET} --stimulus impulse --stimulus noise:seed=0",
    "noise.json": f"a.onnx {IMAGENET} --stimulus noise:seed=0",
    "unit.json": "a.onnx --preprocess unit",
    "logit.json": f"a.onnx {IMAGENET} --projection logit",
    "class.json": f"a.onnx {IMAGENET} --class 1",
    "several.json": f"several/a.onnx a.onnx {IMAGENET}",
    "seven.json": f"seven.onnx {IMAGENET}",
    "dead.json": f"dead.onnx {IMAGENET}",
    "print.json": f"a.onnx {IMAGENET} --fingerprint",
}

CONFIGURATIONS = {
    "onnxgain.toml": '[gate]\npreprocess = "imagenet"\n',
    "full.toml": """
[tool.onnxgain.gate]
models = ["several/*.onnx"]
baseline = "several.json"
preprocess = "imagenet"
max-change = 0.05
jobs = 1

[[tool.onnxgain.gate.overrides]]
match = "b.onnx"
baseline = "base.json"
max-change = 3
per-channel = true
""",
    "mean.toml": """
[tool.onnxgain.gate]
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
scale = 0.00392156862745098
stimulus = ["impulse", "noise:seed=0"]
baseline = "two.json"
image-shape = [3, 12, 10]
timeout = 60
same-class = true
[[tool.onnxgain.gate.overrides]]
match = ["several/**", "x/*"]
preprocess = "unit"
baseline = "unit.json"
stimulus = "impulse"
allow-scale-change = false
""",
    "two.toml": "[tool.onnxgain.gate]\n[[tool.onnxgain.gate.overrides]]\nmatch = 'several/*'\npreprocess = 'unit'\n",
    "typo.toml": "[tool.onnxgain.gate]\nmax-chnage = 1\n",
    "under.toml": "[[tool.onnxgain.gate.overrides]]\nmatch = 'a'\nmax_change = 1\n",
    "run.toml": "[[tool.onnxgain.gate.overrides]]\nmatch = 'a'\njobs = 1\n",
    "section.toml": "[tool.onnxgain.gaet]\nmax-change = 1\n",
    "kind.toml": "[tool.onnxgain.gate]\nmax-change = '1'\n",
    "flag.toml": "[tool.onnxgain.gate]\nsame-class = 1\n",
    "bool.toml": "[tool.onnxgain.gate]\nmax-gain = true\n",
    "nan.toml": "[tool.onnxgain.gate]\nmax-gain = nan\n",
    "choice.toml": "[tool.onnxgain.gate]\npreprocess = 'imagent'\n",
    "shape.toml": "[tool.onnxgain.gate]\nimage-shape = [3, 0]\n",
    "match.toml": "[[tool.onnxgain.gate.overrides]]\nmax-change = 1\n",
    "list.toml": "[tool.onnxgain.gate.overrides]\nmatch = 'a'\n",
    "broken.toml": "[tool.onnxgain.gate\n",
    "other.toml": "[tool.black]\nline-length = 1\n",
}


@pytest.fixture
def run(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run the gate in the folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    capfd.readouterr()

    return lambda *arguments: run("gate", *arguments, "--cache", folder / "cache")


# ----------------------------------------------------------------------------------------------- scenarios
class Scenario(NamedTuple):
    """Arguments, the exit code, and what must be in what is printed (not, with a leading !)."""

    arguments: str
    code: int
    printed: tuple[str, ...]


S = Scenario
BASE = "--baseline base.json"
SCENARIOS = [
    # absolute bounds
    S("a.onnx --max-gain 100", 0, ("PASS  a.onnx: 1 check passed",)),
    S("a.onnx --max-gain -100", 1, ("FAIL  a.onnx: 1 of 1 check did not pass", "max-gain", "above -100.00 dB")),
    S("a.onnx --min-gain 100", 1, ("impulse, mean: gain ", "below 100.00 dB")),
    S("a.onnx --min-gain -100 --max-gain 100", 0, ("2 checks passed",)),
    S("a.onnx --min-gain 100 --per-channel", 1, ("3 of 3 checks", "impulse, R: gain", "impulse, B: gain")),
    S("grey.onnx --max-gain 100 --per-channel --preprocess unit", 0, ("1 check passed", "grey")),
    S("a.onnx --min-gain 5 --max-gain 4", 2, ("no gain is at least 5 and at most 4 dB",)),
    S("a.onnx --max-gain nan", 2, ("--max-gain: is nan",)),
    S("a.onnx --max-gain inf", 2, ("--max-gain: is inf",)),
    S("a.onnx --max-gain loud", 2, ("'loud' is not a valid float",)),
    S("a.onnx --max-change -1 --baseline base.json", 2, ("--max-change: is -1", "without a sign")),
    S("a.onnx --max-gain 100 --stimulus impulse --stimulus noise:seed=4", 0, ("2 checks passed", "noise:seed=4")),
    S("a.onnx --max-gain 100 --stimulus nose", 2, ("unknown stimulus 'nose'",)),
    # nothing to check
    S("a.onnx", 2, ("there is nothing to check (a.onnx)", "--max-gain", "--baseline FILE")),
    S("a.onnx --per-channel", 2, ("there is nothing to check",)),
    S("--max-gain 1", 2, ("no model is named",)),
    S("a.onnx --max-change 1", 2, ("a bound on changes needs a baseline (a.onnx)",)),
    S("a.onnx --same-class", 2, ("needs a baseline",)),
    S("a.onnx --require same-function", 2, ("--require: names no baseline",)),
    S("a.onnx --fingerprint", 2, ("--fingerprint: names no baseline",)),
    S(f"a.onnx {BASE} --no-fingerprint --require same-function", 2, ("--require: asks for fingerprints",)),
    # against a baseline with a fingerprint
    S("a.onnx --baseline print.json", 0, ("SAME FUNCTION a.onnx: no answer changed, they diverge by",)),
    S("again.onnx --baseline print.json --require same-function", 0, ("SAME FUNCTION again.onnx",)),
    S("loud.onnx --baseline print.json", 0, ("SAME FUNCTION loud.onnx", "they diverge by")),  # more confident
    S("near.onnx --baseline print.json", 0, ("PASS  near.onnx", "they diverge by")),
    S("near.onnx --baseline print.json --require same-function", 1, ("FAIL  near.onnx", "fingerprint", "pass: ")),
    S("loud.onnx --baseline print.json --max-change 0.1", 1, ("max-change", "more than 0.10")),
    S("loud.onnx --baseline print.json --no-fingerprint", 1, ("max-change", "more than 0.10")),
    S("loud.onnx --baseline print.json --max-change 0.25 --with-confidence", 0, ("2 checks passed",)),
    S("loud.onnx --baseline print.json --max-change 0.25 --without-confidence", 1, ("of it confidence",)),
    S("shaken.onnx --baseline print.json", 3, ("REVIEW shaken.onnx", "to look", "onnxgain diff", "to accept")),
    S("shaken.onnx --baseline print.json --require review", 0, ("PASS  shaken.onnx",)),
    S("other.onnx --baseline print.json --require review", 1, ("FAIL  other.onnx", "answers changed")),
    S("other/a.onnx shaken/a.onnx a.onnx --baseline print.json", 2, ("2 of 3 models could not be judged",)),
    S("seven.onnx --baseline print.json", 1, ("5 classes, now 7",)),
    S("turned.onnx --baseline print.json", 1, ("FAIL  turned.onnx",)),
    S("base.json --baseline print.json", 2, ("there is no fingerprint of this model",)),
    S(f"a.onnx {BASE}", 0, ("the baseline holds no fingerprint, so the gain alone is judged",)),
    S(f"a.onnx {BASE} --max-gain 100", 0, ("6 checks passed",)),
    # against a baseline
    S(f"a.onnx {BASE}", 0, ("3 checks passed", "+0.00")),
    S(f"again.onnx {BASE}", 0, ("PASS  again.onnx",)),
    S(f"loud.onnx {BASE}", 1, ("3 of 3 checks", "max-change", "more than 0.10", "why", "compared with a.onnx")),
    S(f"quiet.onnx {BASE}", 1, ("changed by -", "the file differs")),
    S(f"loud.onnx {BASE} --max-change 5", 0, ("1 check passed", "+0.24")),
    S(f"loud.onnx {BASE} --max-rise 0.1", 1, ("gain rose by 0.3",)),
    S(f"quiet.onnx {BASE} --max-rise 0.1", 0, ()),
    S(f"quiet.onnx {BASE} --max-drop 0.1", 1, ("gain fell by 0.",)),
    S(f"loud.onnx {BASE} --max-drop 0.1", 0, ()),
    S(f"loud.onnx {BASE} --max-change 5 --max-rise 0.1 --min-gain 100", 1, ("2 of 3 checks", "min-gain", "max-rise")),
    S(f"flip.onnx {BASE} --same-class", 1, ("same-class", "became 0")),
    S(f"loud.onnx {BASE} --same-class", 1, ("max-change",)),  # one more option never loosens
    S(f"loud.onnx {BASE} --max-score-change 1", 1, ("max-change",)),
    S(f"loud.onnx {BASE} --same-class --max-change 90", 0, ("2 checks passed",)),
    S(f"flip.onnx {BASE} --max-score-change 0.001", 1, ("max-score-change", "score changed by", "of class")),
    S(f"a.onnx {BASE} --max-score-change 0.001", 0, ()),
    S("a.onnx --baseline two.json", 0, ("6 checks passed", "impulse", "noise:seed=0")),
    S("loud.onnx --baseline two.json --max-change 0.1", 1, ("2 of 2 checks",)),
    S("several/a.onnx a.onnx --baseline several.json", 0, ("2 models passed",)),
    S("several --baseline several.json --max-change 0.1", 2, ("holds no record of this model", "1 of 2 models")),
    S("several/*.onnx a.onnx --baseline several.json", 2, ("ERROR several/b.onnx", "PASS  a.onnx")),
    S("base.json --baseline two.json --stimulus impulse", 2, ("noise:seed=0: was measured before, but not now",)),
    S("base.json --baseline base.json", 0, ("PASS  a.onnx",)),
    S("base.json --max-gain -100", 1, ("FAIL  a.onnx",)),
    # what cannot be compared
    S(f"a.onnx {BASE} --stimulus noise:seed=0", 2, ("noise:seed=0: was not measured before", "impulse: was measured")),
    S("a.onnx --baseline noise.json --stimulus noise:seed=1", 2, ("noise:seed=0, now noise:seed=1",)),
    S(f"a.onnx {BASE} --stimulus impulse --stimulus noise:seed=0", 2, ("noise:seed=0: was not measured before",)),
    S("a.onnx --baseline two.json --stimulus impulse", 2, ("add --stimulus noise:seed=0",)),
    S("a.onnx --baseline unit.json", 2, ("input scale unit", "now imagenet", "--allow-scale-change")),
    S("a.onnx --baseline unit.json --allow-scale-change --max-change 50", 0, ()),
    S("a.onnx --baseline unit.json --allow-scale-change", 1, ("max-change", "why", "input scale unit")),
    S("a.onnx --baseline logit.json", 2, ("projection logit, now 1/score",)),
    S("a.onnx --baseline logit.json --projection logit", 0, ()),
    S("a.onnx --baseline class.json", 2, ("class 1 as given, now the winner",)),
    S("a.onnx --baseline class.json --class 1", 0, ()),
    S("a.onnx --baseline class.json --class 2", 2, ("class 1 as given, now 2 as given",)),
    S(f"large.onnx {BASE}", 2, ("image size 3x12x10, now 3x14x10",)),
    S(f"grey.onnx {BASE} --preprocess unit", 2, ("image size 3x12x10, now 1x12x10",)),
    S(f"seven.onnx {BASE} --max-change 90 --same-class", 2, ("5 classes before, 7 now",)),
    S("a.onnx --baseline assumed.json", 0, ()),
    # what cannot be read
    S("missing.onnx --max-gain 1", 2, ("ERROR missing.onnx", "no such file")),
    S("broken.onnx --max-gain 1", 2, ("ERROR broken.onnx", "not an ONNX model")),
    S(f"broken.onnx loud.onnx {BASE} --max-change 0.1", 2, ("could not be judged",)),
    S("nothing/*.onnx --max-gain 1", 2, ("no model matches",)),
    S("nan.onnx --max-gain 100", 2, ("not finite",)),
    S("zero.onnx --max-gain 100", 1, ("no-dead-channel", "exactly zero", "are off (dead)")),
    S(f"zero.onnx {BASE}", 1, ("exactly zero",)),
    S("dead.onnx --max-gain 100", 1, ("no-dead-channel", "channel R is exactly zero")),
    S("dead.onnx --no-dead-channel", 1, ("impulse, R: the derivative by channel R is exactly zero",)),
    S("a.onnx --no-dead-channel", 0, ("1 check passed",)),
    S(f"a.onnx {BASE} --allow-random --allow-float16", 0, ("3 checks passed",)),
    S(f"dead.onnx {BASE} --same-class", 1, ("no-dead-channel",)),
    S(f"dead.onnx {BASE}", 1, ("impulse, R: there is no gain",)),
    S("a.onnx --baseline dead.json", 2, ("impulse, R: the baseline has no gain",)),
    S("a.onnx --baseline missing.json", 2, ("missing.json: no such file", "--update-baseline")),
    S("a.onnx --baseline schema.json", 2, ("onnxgain.records/99", "measure again")),
    S("a.onnx --baseline nan.json", 2, ("NaN is no JSON number",)),
    S("a.onnx --baseline half.json", 2, ("not JSON",)),
    S("a.onnx --baseline none.json", 2, ("holds no record",)),
    S("a.onnx --baseline field.json", 2, ("damaged record",)),
    S("a.onnx --baseline text.txt", 2, ("not JSON",)),
    S("a.onnx --baseline a.onnx", 2, ("it is not UTF-8 text",)),
    S("a.onnx --baseline several", 2, ("it is a folder",)),
    S("half.json --max-gain 1", 2, ("not JSON",)),
    # the gradient
    S("a.onnx --verified", 0, ("1 check passed",)),
    S(f"a.onnx {BASE} --verified", 0, ("4 checks passed",)),
    S("base.json --verified", 2, ("saved records cannot be verified",)),
    # configurations
    S("--config full.toml", 0, ("PASS  several/a.onnx", "PASS  several/b.onnx", "2 models passed")),
    S("several/b.onnx --config full.toml --max-change 0.1", 1, ("3 of 3 checks",)),
    S("loud.onnx --config full.toml --baseline base.json", 1, ("FAIL  loud.onnx: 1 of 1 check", "more than 0.05")),
    S("a.onnx --config mean.toml", 0, ("8 checks passed",)),
    S("several/a.onnx --config mean.toml", 0, ("4 checks passed",)),
    S("a.onnx --config mean.toml --stimulus impulse", 2, ("add --stimulus noise:seed=0",)),
    S("a.onnx --config mean.toml --preprocess unit", 2, ("now unit",)),
    S("a.onnx --config typo.toml", 2, ("unknown key 'max-chnage'", "nearest known one is 'max-change'")),
    S("a.onnx --config under.toml", 2, ("overrides 1: unknown key 'max_change'", "'max-change'")),
    S("a.onnx --config run.toml", 2, ("unknown key 'jobs'",)),
    S("a.onnx --config section.toml", 2, ("tool.onnxgain: unknown key 'gaet'", "'gate'")),
    S("a.onnx --config kind.toml", 2, ("kind.toml: gate.max-change: is '1', not a number",)),
    S("a.onnx --config flag.toml", 2, ("is 1, not true or false",)),
    S("a.onnx --config bool.toml", 2, ("is True, not a number",)),
    S("a.onnx --config nan.toml", 2, ("--max-gain: is nan",)),
    S("a.onnx --config choice.toml", 2, ("gate.preprocess: 'imagent' is not one of",)),
    S("a.onnx --config shape.toml", 2, ("is not a shape",)),
    S("a.onnx --config match.toml", 2, ("match: is not a text or a list of texts",)),
    S("a.onnx --config list.toml", 2, ("is not a list of tables",)),
    S("a.onnx --config broken.toml", 2, ("broken.toml: is no TOML",)),
    S("a.onnx --config other.toml", 2, ("has no [tool.onnxgain.gate]",)),
    S("a.onnx --config missing.toml", 2, ("missing.toml: no such file",)),
    # outputs
    S("a.onnx --max-gain 100 --format xml", 2, ("'xml' is not one of",)),
    S("a.onnx --max-gain 100 --write junit", 2, ("--write junit: is not FORMAT=FILE", "metrics")),
    S("a.onnx --max-gain 100 --write xml=a.xml", 2, ("is not FORMAT=FILE",)),
    S("a.onnx --max-gain 100 -o missing/out.txt", 2, ("missing does not exist; create the folder first",)),
    S("a.onnx --max-gain 100 --write junit=missing/out.xml", 2, ("missing does not exist; create the folder first",)),
    S("a.onnx --max-gain 100 --update-baseline", 2, ("--update-baseline: names no baseline",)),
    S("a.onnx --baseline a.onnx --update-baseline", 2, ("is not a file of records, so it is not overwritten",)),
    S("a.onnx --baseline text.txt --update-baseline", 2, ("not overwritten",)),
    S("a.onnx --baseline missing/b.json --update-baseline", 2, ("missing does not exist; create the folder first",)),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.arguments)
def test_scenarios(scenario: Scenario, run: Any) -> None:
    code, out, err = run(*scenario.arguments.split())
    assert code == scenario.code, out + err
    for text in scenario.printed:
        assert text in out + err
    assert "Traceback" not in err
    assert "bug in onnxgain" not in err


def test_the_scenarios_are_many_and_reach_every_option() -> None:
    assert len(SCENARIOS) >= 40
    used = {word for scenario in SCENARIOS for word in scenario.arguments.split() if word.startswith("--")}
    bounds = {max(p.opts, key=len) for p in gate.params[1:18]}
    assert "--min-gain" in bounds
    assert "--allow-scale-change" in bounds
    assert bounds <= used


def test_the_help_knows_the_default_bound() -> None:
    (option,) = (p for p in gate.params if isinstance(p, click.Option) and p.name == "baseline")
    assert option.help is not None
    assert f"--max-change {DEFAULT_MAX_CHANGE} --per-channel" in option.help


def test_an_interruption_is_an_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not measured for it does not pass, whatever the rest did."""
    from onnxgain.fleet.batch import score_batch

    def interrupted(*arguments: Any, **options: Any) -> Any:
        stream = score_batch(*arguments, **options)
        yield next(stream)
        stream.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxgain.fleet.batch.score_batch", interrupted)
    code, out, _ = run("a.onnx", "several/a.onnx", "several/b.onnx", "--max-gain", "100", "--config", "two.toml")
    assert code == 2
    assert out.count("interrupted before it was measured") == 2
    assert "2 of 3 models could not be judged" in out


def test_nothing_but_the_verdict_decides_the_exit_code(run: Any) -> None:
    """In every format, and written to a file as well as printed."""
    for form in FORMATS["gate"]:
        for arguments, expected in (("--max-gain 100", 0), ("--max-gain -100", 1), ("--baseline missing.json", 2)):
            code, out, _ = run("a.onnx", *arguments.split(), "--format", form)
            assert code == expected, form
            written = f"{form}-{expected}.txt"
            code, printed, _ = run("a.onnx", *arguments.split(), "--format", form, "-o", written)
            assert (code, printed) == (expected, "")
            if form not in ("junit", "html"):  # these have the time in them
                assert Path(written).read_text() == out


# -------------------------------------------------------------------------------------------------- formats
def test_json(run: Any, folder: Path) -> None:
    code, out, _ = run("loud.onnx", "missing.onnx", "--baseline", "two.json", "--max-change", "0.0", "--format", "json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    assert (document["schema"], document["verdict"]) == (SCHEMA, "error")
    assert document["counts"] == {
        "models": 2, "pass": 0, "fail": 1, "error": 1, "same function": 0, "review": 0,
    }  # fmt: skip
    code, out, _ = run("loud.onnx", "--baseline", "two.json", "--max-change", "0.0", "--format", "json")
    (model,) = json.loads(out)["models"]
    assert (code, model["verdict"], model["model"]) == (1, "fail", "loud.onnx")
    assert model["policy"] == {"max_change": 0.0, "fingerprint": True, "require": "pass"}
    assert model["function"] is None
    before = {record.stimulus.name: record.gain.mean for record in from_json((folder / "two.json").read_text())}
    for change, measured in zip(model["changes"], model["measurements"], strict=True):
        gain = change["gain_db"]["mean"]
        assert gain["before"] == before[change["stimulus"].partition(":")[0]]
        assert gain["after"] == measured["gain_db"]["mean"]
        assert gain["delta"] == gain["after"] - gain["before"]
    assert {check["outcome"] for check in model["checks"]} == {"finding"}
    assert model["checks"][0]["excess"] >= model["checks"][1]["excess"] > 0


def test_metrics_are_flat_numbers_with_lasting_names(run: Any) -> None:
    _, out, _ = run("a.onnx", "--baseline", "two.json", "--format", "metrics")
    _, other, _ = run("loud.onnx", "a.onnx", "--max-gain", "-100", "--stimulus", "impulse", "--format", "metrics")
    metrics, more = json.loads(out), json.loads(other)
    assert all(value is None or isinstance(value, (int, float)) for value in metrics.values())
    assert metrics["failed_checks"] == 0
    assert more["failed_checks"] == 2
    assert set(metrics) & set(more) == {"failed_checks"} | {
        f"a.onnx.impulse.{what}"
        for what in ("gain_R_db", "gain_G_db", "gain_B_db", "gain_mean_db", "class", "score")
    }  # fmt: skip
    _, twice, _ = run("a.onnx", "several/a.onnx", "--max-gain", "100", "--format", "metrics")
    assert {"a.onnx.impulse.class", "several/a.onnx.impulse.class"} <= set(json.loads(twice))


def test_junit(run: Any) -> None:
    code, out, _ = run("loud.onnx", "a.onnx", "missing.onnx", "--max-gain", "-58.75", "--same-class", "--baseline",
                       "two.json", "--stimulus", "impulse", "--format", "junit")  # fmt: skip
    assert code == 2
    root = etree.fromstring(out.encode())
    XSD.assertValid(root)
    assert [suite.get("name") for suite in root] == ["loud.onnx", "a.onnx", "missing.onnx"]
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    (error,) = root[2].findall("testcase/error")
    assert "no such file" in error.get("message")


HOSTILE = "a,b:%\r\n::error::x\x1b[31m\x00<b>&|`@everyone`]]>\ud800\ufffe.onnx"


@pytest.mark.parametrize("form", ["json", "metrics", "table", "markdown", "junit", "github"])
def test_every_format_can_be_written_whatever_the_names(form: str) -> None:

    assert render("gate", form, hostile_results()).encode()


def hostile_results() -> list[GateResult]:
    """Names and messages from a stranger's file."""
    check = Check("max-gain", "finding", HOSTILE, HOSTILE, HOSTILE, float("nan"), None, 1.0)
    error = Check("measured", "error", HOSTILE)
    return [GateResult(HOSTILE, Policy(max_gain=1.0), (check, error), notes=(HOSTILE,), baseline=HOSTILE)]


def test_junit_is_valid_whatever_the_names() -> None:
    text = render_junit(hostile_results(), now=datetime(2026, 1, 2, 3, 4, 5))
    root = etree.fromstring(text.encode())
    XSD.assertValid(root)
    assert root[0].get("timestamp") == "2026-01-02T03:04:05"
    assert len(root.findall(".//failure")) == len(root.findall(".//error")) == 1
    nameless = GateResult("\n", Policy(), (Check("measured", "error", ""),))
    XSD.assertValid(etree.fromstring(render_junit([nameless]).encode()))


def test_the_schema_refuses_what_it_should() -> None:
    text = render_junit(hostile_results())
    for old, new in (('id="0"', ""), ('tests="2"', 'tests="two"'), ("system-err", "stderr"), ('type="max-gain"', "")):
        assert old in text
        assert not XSD.validate(etree.fromstring(text.replace(old, new).encode()))


def test_github_annotations_are_escaped(run: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from onnxgain.report.text.github import render_github

    lines = render_github(hostile_results()).split("\n")
    assert [line[:8] for line in lines] == ["::error ", "::error ", "ERROR: 1", ""]
    assert not {"\r", "\x1b", "\x00"} & set("".join(lines))
    assert lines[0].startswith("::error file=a%2Cb%3A%25%0D%0A%3A%3Aerror%3A%3Ax")
    assert ",title=onnxgain gate%3A max-gain::a,b:%25%0D%0A::error::x" in lines[0]

    _, out, _ = run("loud.onnx", "--baseline", "base.json", "--format", "github")
    annotations = [line for line in out.splitlines() if line.startswith("::error ")]
    assert len(annotations) == 3
    assert annotations[0].startswith("::error file=loud.onnx,title=onnxgain gate%3A max-change::loud.onnx: impulse, ")
    assert out.splitlines()[-1] == "FAIL: 1 of 1 model failed"
    monkeypatch.setenv("GITHUB_WORKSPACE", str(folder.parent))
    _, out, _ = run("loud.onnx", "--baseline", "base.json", "--format", "github")
    assert out.startswith(f"::error file={folder.name}/loud.onnx,")


def test_the_job_summary_is_appended(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    _, markdown, _ = run("loud.onnx", "--baseline", "base.json", "--format", "markdown")
    assert summary.read_text() == "before\n"
    assert run("loud.onnx", "--baseline", "base.json", "--format", "github")[0] == 1
    assert summary.read_text() == "before\n" + markdown
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    code, _, err = run("a.onnx", "--baseline", "base.json", "--format", "github")
    assert code == 2
    assert "the job summary cannot be written" in err


def test_markdown(run: Any) -> None:
    _, out, _ = run("a.onnx", "loud.onnx", "--max-gain", "100", "--max-change", "0.1", "--baseline", "several.json")
    code, out, _ = run("loud.onnx", "--baseline", "base.json", "--max-change", "0.1", "--format", "markdown")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "<!-- onnxgain gate -->"
    assert lines[2] == "### onnxgain gate: FAIL: 1 of 1 model failed"
    heading = lines.index("| stimulus | channel | before dB | now dB | change dB | class | score |")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[heading + 2 : heading + 6]]
    assert [row[1] for row in rows] == ["R", "G", "B", "mean"]
    for row in rows:
        assert float(row[4]) == pytest.approx(float(row[3]) - float(row[2]), abs=0.0101)
    # In code spans nothing is markup.
    escaped = re.sub("`[^`]*`", "", render_markdown(hostile_results()))
    assert "<b>" not in escaped.replace("\\<b\\>", "")
    assert "@everyone" not in escaped.replace("\\@everyone", "")
    assert "\x1b" not in escaped


def test_markdown_fits_into_a_comment() -> None:
    check = Check("max-gain", "finding", "m" * 100)
    results = [GateResult(f"model{n}.onnx", Policy(), (check,)) for n in range(2000)]
    text = render_markdown(results)
    assert LENGTH * 0.9 < len(text) < LENGTH + 1000
    shown = text.count("**FAIL**")
    assert f"{2000 - shown} more models are not shown here." in text


def test_failures_come_first(run: Any) -> None:
    code, out, _ = run("a.onnx", "loud.onnx", "missing.onnx", "--max-gain", "-58.75", "--preprocess", "imagenet")
    assert code == 2
    places = [out.index(text) for text in ("ERROR missing.onnx", "FAIL  loud.onnx", "PASS  a.onnx", "ERROR: 1 of 3")]
    assert places == sorted(places)


def test_terminals_are_not_obeyed() -> None:
    from onnxgain.report.text.gate_table import render_table

    assert "\x1b" not in render_table(hostile_results(), colour=False)


def test_several_formats_of_one_run(run: Any, tmp_path: Path) -> None:
    writes = [f"--write={form}={tmp_path / form}" for form in FORMATS["gate"]]
    code, out, _ = run("loud.onnx", "--baseline", "base.json", *writes)
    assert code == 1
    assert (tmp_path / "table").read_text() == out
    XSD.assertValid(etree.parse(str(tmp_path / "junit")))
    assert json.loads((tmp_path / "json").read_text())["verdict"] == "fail"


# ------------------------------------------------------------------------------------------------ baselines
def test_updating_writes_what_then_passes(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    stimuli = ("--stimulus", "impulse", "--stimulus", "noise:seed=3")
    code, out, err = run("a.onnx", "loud.onnx", "--baseline", path, "--update-baseline", *stimuli)
    assert code == 0, out + err
    assert f"wrote {path}: 2 models" in err
    assert run("a.onnx", "loud.onnx", "--baseline", path)[0] == 0
    assert run("loud.onnx", "--baseline", path)[0] == 0
    assert run("quiet.onnx", "--baseline", path)[0] == 2  # is not in it
    records = from_json(path.read_text())
    assert [(r.model.path, r.stimulus.name) for r in records] == [
        ("a.onnx", "impulse"), ("a.onnx", "noise"), ("loud.onnx", "impulse"), ("loud.onnx", "noise"),
    ]  # fmt: skip


def test_updating_one_model_keeps_the_others(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    assert run("a.onnx", "loud.onnx", "--baseline", path, "--update-baseline")[0] == 0
    old = from_json(path.read_text())
    models.save(louder(1.2), folder / "later.onnx")
    (folder / "sub").mkdir(exist_ok=True)
    models.save(louder(1.2), folder / "sub" / "a.onnx")
    code, _, err = run("later.onnx", "sub/a.onnx", "--baseline", path, "--update-baseline")
    assert (code, f"wrote {path}: 3 models" in err) == (0, True)
    new = from_json(path.read_text())
    assert [r.model.path for r in new] == ["sub/a.onnx", "loud.onnx", "later.onnx"]
    assert new[1] == old[1]
    assert new[0].gain != old[0].gain


def test_updating_uses_the_old_stimuli_and_shows_the_change(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text((folder / "two.json").read_text())
    code, out, _ = run("several/b.onnx", "a.onnx", "--baseline", path, "--update-baseline", "--max-change", "0")
    assert code == 0
    assert [stimulus.name for stimulus in [r.stimulus for r in from_json(path.read_text())]] == [
        "impulse", "noise", "impulse",
    ]  # fmt: skip
    code, out, _ = run("a.onnx", "--baseline", path, "--update-baseline")
    assert "+0.00" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("a.onnx missing.onnx", 2),
        ("a.onnx nan.onnx", 2),
        ("a.onnx zero.onnx", 1),
        ("a.onnx dead.onnx", 1),
        ("a.onnx --max-gain -100", 1),
    ],
)
def test_what_does_not_pass_becomes_no_baseline(arguments: str, expected: int, run: Any, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    code, _, err = run(*arguments.split(), "--baseline", path, "--update-baseline")
    assert code == expected
    assert "the baseline is left as it is" in err
    assert list(tmp_path.iterdir()) == []
    path.write_text('{"schema": "onnxgain.records/1", "records": []}')
    assert run(*arguments.split(), "--baseline", path, "--update-baseline")[0] == expected
    assert path.read_text() == '{"schema": "onnxgain.records/1", "records": []}'


def test_a_baseline_of_another_version_is_replaced(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text((folder / "schema.json").read_text())
    assert run("a.onnx", "--baseline", path)[0] == 2
    assert run("a.onnx", "--baseline", path, "--update-baseline")[0] == 0
    assert run("a.onnx", "--baseline", path)[0] == 0


# ------------------------------------------------------------------------------------------- configurations
@pytest.mark.parametrize(("name", "heading"), [("onnxgain.toml", "gate"), ("pyproject.toml", "tool.onnxgain.gate")])
def test_the_nearest_configuration_is_found(
    name: str, heading: str, run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.save(models.conv_net(), tmp_path / "m.onnx")
    (tmp_path / name).write_text(f"[{heading}]\nmodels = ['m.onnx']\nmax-gain = -100\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "pyproject.toml").write_text("[tool.black]\n")
    monkeypatch.chdir(tmp_path / "sub")
    code, out, _ = run()
    assert code == 1
    assert f"FAIL  {tmp_path / 'm.onnx'}" in out
    monkeypatch.chdir(tmp_path)
    code, out, _ = run()
    assert (code, "FAIL  m.onnx" in out) == (1, True)
    assert run("--max-gain", "100")[0] == 0


def test_paths_are_relative_to_the_configuration(run: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "several")
    code, out, err = run("--config", "../full.toml")
    assert code == 0, out + err
    assert "2 models passed" in out


def test_onnxgain_toml_has_its_own_heading(run: Any, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "onnxgain.toml"
    path.write_text("[tool.onnxgain.gate]\nmax-gain = 1\n")
    code, _, err = run(folder / "a.onnx", "--config", path)
    assert code == 2
    assert "unknown key 'tool'; the nearest known one is 'gate'" in err


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.onnx", "a/b.onnx", True),
        ("b.onnx", "a/b.onnx", True),
        ("a/*.onnx", "a/b.onnx", True),
        ("a/*.onnx", "a/c/b.onnx", False),
        ("*/b.onnx", "a/c/b.onnx", False),
        ("a/**/b.onnx", "a/b.onnx", True),
        ("a/**/b.onnx", "a/c/d/b.onnx", True),
        ("**/b.onnx", "b.onnx", True),
        ("a/**", "a/c/b.onnx", True),
        ("a/**", "b/a.onnx", False),
        ("./a/*.onnx", "a/b.onnx", True),
        ("B.onnx", "b.onnx", False),
        ("[ab].onnx", "b.onnx", True),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


# ------------------------------------------------------------------------------------------------- processes
@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX pipes")
def test_a_reader_that_goes_away_changes_no_verdict(folder: Path) -> None:
    """`onnxgain gate | head` under `set -o pipefail` must still fail."""
    code = "import time; time.sleep(0.2)\nfrom onnxgain.commands.cli import main\nmain()"
    for arguments, expected in (("--max-gain -100", 1), ("--max-gain 100", 0), ("--baseline missing.json", 2)):
        process = subprocess.Popen(
            [sys.executable, "-c", code, "gate", "base.json", *arguments.split()],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate()
        assert process.returncode == expected, err


def test_a_cached_gate_needs_no_runtime(run: Any, folder: Path) -> None:
    assert run("a.onnx", "--max-gain", "100")[0] == 0
    code = """
import sys
from onnxgain.commands.cli import main
try:
    main()
finally:
    print([name for name in ("onnx", "onnxruntime", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "gate", "a.onnx", "--max-gain", "100", "--cache", "cache"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
