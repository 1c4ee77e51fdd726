"""`onnxgain gate` through the real command line: exit codes and output over bounds, baselines and errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from onnxgain.analysis.policy import DEFAULT_MAX_CHANGE
from onnxgain.commands.gate import gate
from onnxgain.report.reporter import FORMATS


class Scenario(NamedTuple):
    """Arguments, exit code, and texts that the output must contain (must not, with a leading !)."""

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
    S(
        "a.onnx --baseline print.json",
        0,
        ("SAME FUNCTION a.onnx: its answers differ by 0 % (same top class on all 48",),
    ),
    S("again.onnx --baseline print.json --require same-function", 0, ("SAME FUNCTION again.onnx",)),
    S("loud.onnx --baseline print.json", 0, ("SAME FUNCTION loud.onnx", "its answers differ by")),  # more confident
    S("near.onnx --baseline print.json", 0, ("PASS  near.onnx", "its answers differ by")),
    S("near.onnx --baseline print.json --require same-function", 1, ("FAIL  near.onnx", "more than 0.020 %")),
    S("loud.onnx --baseline print.json --max-change 0.1", 1, ("max-change", "more than 0.10")),
    S("loud.onnx --baseline print.json --no-fingerprint", 1, ("max-change", "more than 0.10")),
    S("loud.onnx --baseline print.json --max-change 0.25 --with-confidence", 0, ("2 checks passed",)),
    S("loud.onnx --baseline print.json --max-change 0.25 --without-confidence", 1, ("of it confidence",)),
    S("shaken.onnx --baseline print.json", 3, ("REVIEW shaken.onnx", "to look", "onnxgain diff", "to add it")),
    S("shaken.onnx --baseline print.json --require review", 0, ("PASS  shaken.onnx",)),
    S(
        "other.onnx --baseline print.json --require review",
        1,
        ("FAIL  other.onnx", "its answers differ by", "(top class differs on "),
    ),
    S("other/a.onnx shaken/a.onnx a.onnx --baseline print.json", 2, ("2 of 3 models could not be judged",)),
    S("seven.onnx --baseline print.json", 1, ("5 classes, now 7",)),
    S("turned.onnx --baseline print.json", 1, ("FAIL  turned.onnx",)),
    S("base.json --baseline print.json", 2, ("there is no fingerprint of this model",)),
    S(f"a.onnx {BASE}", 0, ("the baseline holds no fingerprint, so the gain alone is judged",)),
    S(f"a.onnx {BASE} --max-gain 100", 0, ("6 checks passed",)),
    # against a baseline
    S(f"a.onnx {BASE}", 0, ("3 checks passed", "+0.00")),
    S(f"again.onnx {BASE}", 0, ("PASS  again.onnx",)),
    S(
        f"loud.onnx {BASE}",
        1,
        (
            "3 of 3 checks",
            "max-change",
            "more than 0.10",
            "why",
            "compared with     a.onnx, the only model in base.json",
        ),
    ),
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
    S(
        "several --baseline several.json --max-change 0.1",
        2,
        ("not in the baseline several.json, which holds several/a.onnx, a.onnx", "1 of 2 models"),
    ),
    S(
        "several/*.onnx a.onnx --baseline several.json",
        2,
        ("NEW   several/b.onnx: there is nothing to compare it with", "PASS  a.onnx"),
    ),
    S("base.json --baseline two.json --stimulus impulse", 2, ("noise:seed=0: was measured before, but not now",)),
    S("base.json --baseline base.json", 2, ("is the baseline itself, so no model would be judged",)),
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
    S("a.onnx --baseline nan.json", 2, ("NaN is not a JSON number",)),
    S("a.onnx --baseline half.json", 2, ("not JSON", "delete it and run the gate with --update-baseline")),
    S("a.onnx --baseline none.json", 2, ("holds no record",)),
    S("a.onnx --baseline twice.json", 2, ("twice.json: not JSON (an object has the key 'records' twice)",)),
    S("a.onnx --baseline field.json", 2, ("damaged record",)),
    S("a.onnx --baseline text.txt", 2, ("not JSON",)),
    S("a.onnx --baseline a.onnx", 2, ("it is not UTF-8 text",)),
    S("a.onnx --baseline several", 2, ("it is a folder; name a baseline",)),
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
    S("a.onnx --config shape.toml", 2, ("has a side of zero",)),
    S("a.onnx --config match.toml", 2, ("match: is not a text or a non-empty list of texts",)),
    S("--config empty.toml", 2, ("gate.models: is an empty list; name one",)),
    S("a.onnx --config list.toml", 2, ("is not a list of tables",)),
    S("a.onnx --config broken.toml", 2, ("broken.toml: is not TOML",)),
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


def test_scenarios_cover_every_option() -> None:
    assert len(SCENARIOS) >= 40
    used = {word for scenario in SCENARIOS for word in scenario.arguments.split() if word.startswith("--")}
    bounds = {max(p.opts, key=len) for p in gate.params[1:18]}
    assert "--min-gain" in bounds
    assert "--allow-scale-change" in bounds
    assert bounds <= used


def test_help_shows_the_default_bound() -> None:
    (option,) = (p for p in gate.params if isinstance(p, click.Option) and p.name == "baseline")
    assert option.help is not None
    assert f"--max-change {DEFAULT_MAX_CHANGE} --per-channel" in option.help


def test_an_interruption_is_an_error(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that were not measured do not pass, whatever the others do."""
    from onnxgain.fleet.batch import score_batch

    def interrupted(*arguments: Any, **options: Any) -> Any:
        stream = score_batch(*arguments, **options)
        yield next(stream)
        stream.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxgain.fleet.batch.score_batch", interrupted)
    code, out, _ = run("a.onnx", "several/a.onnx", "several/b.onnx", "--max-gain", "100", "--config", "two.toml")
    assert code == 2
    assert out.startswith(
        "ERROR 2 models could not be judged: interrupted before it was measured\n"
        "  models            several/a.onnx, several/b.onnx\n"
    )
    assert "2 of 3 models could not be judged" in out


def test_only_the_verdict_decides_the_exit_code(run: Any) -> None:
    """In every format, and written to a file as well as printed."""
    for form in FORMATS["gate"]:
        for arguments, expected in (("--max-gain 100", 0), ("--max-gain -100", 1), ("--baseline missing.json", 2)):
            code, out, _ = run("a.onnx", *arguments.split(), "--format", form)
            assert code == expected, form
            written = f"{form}-{expected}.txt"
            code, printed, err = run("a.onnx", *arguments.split(), "--format", form, "-o", written)
            assert (code, printed, f"wrote {written}\n" in err) == (expected, "", True)
            if form not in ("junit", "html"):  # these have the time in them
                assert Path(written).read_text() == out


# ------------------------------------------------------------------------------------------------- processes
@pytest.mark.skipif(sys.platform == "win32", reason="no POSIX pipes")
def test_closed_pipe_does_not_change_the_exit_code(folder: Path) -> None:
    """`onnxgain gate | head` must still fail under `set -o pipefail`."""
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
