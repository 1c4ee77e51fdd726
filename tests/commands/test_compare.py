"""`onnxgain compare` through the command line: every model is accounted for, whatever happens to it or to the run."""

from __future__ import annotations

import csv
import functools
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxgain.analysis.comparison import SORTS
from onnxgain.commands import compare as command
from onnxgain.measure.record import from_json, to_json
from tests.support import fleet, models
from tests.support.batches import entries, names

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def run(run: Any) -> Any:
    """Run `onnxgain compare` in this process: (exit code, standard output, standard error)."""
    return functools.partial(run, "compare")


def test_sort_orders_in_help_match_the_code() -> None:
    assert tuple(SORTS) == command.SORTS


def test_all_formats_account_for_every_model(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "models", 3)
    (tmp_path / "models" / "broken.onnx").write_bytes(b"no model")
    arguments = (tmp_path / "models", tmp_path / "missing.onnx")
    code, table, err = run(*arguments)
    assert (code, err) == (2, "")
    assert "failed (2):" in table
    code, text, err = run(*arguments, "--format", "json")
    document = json.loads(text)
    assert code == 2
    assert err == "2 of 5 failed, see the list\n"
    assert document["schema"] == "onnxgain.comparison/1"
    assert sorted(names(document)[0]) == ["m0.onnx", "m1.onnx", "m2.onnx"]
    assert [Path(failure["model"]).name for failure in document["failures"]] == ["broken.onnx", "missing.onnx"]
    assert "not an ONNX model" in document["failures"][0]["reason"]
    gains = [model["gain_db"]["mean"] for model in document["groups"][0]["models"]]
    assert gains == sorted(gains, reverse=True)
    _, text, _ = run(*arguments, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [Path(row["model"]).name for row in rows[:3]] == names(document)[0]
    assert [float(row["gain_mean_db"]) for row in rows[:3]] == gains
    assert [bool(row["failure"]) for row in rows] == [False] * 3 + [True] * 2
    _, markdown, _ = run(*arguments, "--format", "markdown")
    for shown in (table, markdown):
        for name, gain in zip(names(document)[0], gains, strict=True):
            assert any(name in line and f"{gain:.2f}" in line for line in shown.splitlines())
        for failure in document["failures"]:
            assert Path(failure["model"]).name in shown


def test_good_models_only_is_success(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 2)
    code, out, err = run(tmp_path / "*.onnx", "-o", tmp_path / "out.txt")
    assert (code, out, err) == (0, "", f"wrote {tmp_path / 'out.txt'}\n")
    assert "m1.onnx" in (tmp_path / "out.txt").read_text()


@pytest.mark.parametrize(
    ("sort", "key", "descending"),
    [("gain", lambda m: m["gain_db"]["mean"], True), ("name", lambda m: int(Path(m["model"]).stem[1:]), False),
     ("class", lambda m: m["class"], False), ("score", lambda m: m["score"], True),
     ("error", lambda m: m["error_percent"]["top1 error"], False)],
)  # fmt: skip
def test_sorting(run: Any, tmp_path: Path, sort: str, key: Any, descending: bool) -> None:
    fleet.write_fleet(tmp_path, 12)
    (tmp_path / "t.csv").write_text("model,top1\n" + "".join(f"m{i},{(i * 7) % 12}\n" for i in range(12)))
    arguments = (tmp_path, "--accuracy", tmp_path / "t.csv", "--sort", sort, "--format", "json")
    for reverse in (False, True):
        code, text, _ = run(*arguments, *(["--reverse"] if reverse else []))
        assert code == 0
        keys = [key(model) for model in json.loads(text)["groups"][0]["models"]]
        assert len(set(keys)) > 1
        assert keys == sorted(keys, reverse=descending != reverse)


def test_incomparable_records_are_grouped_separately(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 2)
    models.save(models.conv_net(size=(16, 16)), tmp_path / "large.onnx")
    models.save(models.conv_net(normalize=(1 / 255, 0.5, 0.2)), tmp_path / "says.onnx")
    code, text, _ = run(tmp_path, "--stimulus", "impulse", "--stimulus", "noise:seed=4", "--format", "json")
    document = json.loads(text)
    assert code == 0
    assert [sorted(group) for group in names(document)] == [["m0.onnx", "m1.onnx", "says.onnx"]] * 2 + [
        ["large.onnx"]
    ] * 2
    assert [group["title"].partition(",")[0] for group in document["groups"]][:2] == ["impulse", "noise (seed 4"]
    _, table, _ = run(tmp_path)
    assert "gains in different tables cannot be compared" in table
    # an assumed scale is marked, a declared one is not
    assert "imagenet*" in table
    assert [line.split()[-1] for line in table.splitlines() if "says.onnx" in line] == ["raw"]
    assert "input scale assumed" in table


def test_options_reach_the_records(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 1)
    saved = tmp_path / "r.json"
    options = (
        "--preprocess",
        "unit",
        "--projection",
        "logit",
        "--class",
        "2",
        "--threads",
        "1",
        "--save-records",
        saved,
    )
    assert run(tmp_path, *options)[0] == 0
    (record,) = from_json(saved.read_text())
    assert (record.scale.name, record.projection, record.class_index, record.class_given) == ("unit", "logit", 2, True)


def test_saved_records_are_compared_with_models(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "a", 3)
    saved = tmp_path / "saved.json"
    assert run(tmp_path / "a", "--save-records", saved)[0] == 0
    fleet.write_fleet(tmp_path / "b", 1)
    code, text, _ = run(saved, tmp_path / "b", "--format", "json")
    assert code == 0
    found = [model["model"] for model in json.loads(text)["groups"][0]["models"]]
    assert sorted(found) == sorted(
        [*(str(tmp_path / "a" / f"m{i}.onnx") for i in range(3)), str(tmp_path / "b" / "m0.onnx")]
    )
    _, table, _ = run(saved, tmp_path / "b")
    assert str(Path("b") / "m0.onnx") in table.replace("\n", "")  # two files with the same name are shown by path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sort", "error"], "--sort error: needs the models' errors; give them with --accuracy"),
        (["--plot", "x.png"], "--plot: needs the models' errors"),
        (["--plot", "x.gif", "--accuracy", "t.csv"], "cannot draw a 'gif' file"),
        (["--accuracy", "missing.csv"], "--accuracy missing.csv: no such file"),
        (["--filter", "x*"], "--filter x*: no model is left"),
        (["--stimulus", "square"], "unknown stimulus 'square'"),
        (["--stimulus", "noise:sigma=-1"], "sigma is -1"),
        (["--memory-limit", "lots"], "'lots' is not a size such as 800M or 2G"),
        (["--memory-limit", "0"], "is not a size"),
        (["--timeout", "0"], "--timeout"),
        (["--jobs", "0"], "--jobs"),
        (["--cache", "c", "--no-cache"], "--cache and --no-cache: cannot be given together"),
        (["--image", "no.png"], "no such image"),
    ],
)
def test_mistakes_are_reported_before_measuring(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fleet.write_fleet(tmp_path, 1)
    (tmp_path / "t.csv").write_text("model,top1\nm0,90\n")
    code, out, err = run("m0.onnx", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert entries(own_cache) == 0


def test_names_cannot_break_out_of_the_formats(run: Any, tmp_path: Path) -> None:
    (path,) = fleet.write_fleet(tmp_path, 1)
    hostile = tmp_path / "a|b\n`c` \x1b[31m<script>[x](y)*_.onnx"
    path.rename(hostile)
    _, table, _ = run(tmp_path)
    assert "\x1b" not in table
    _, markdown, _ = run(tmp_path, "--format", "markdown")
    rows = [line for line in markdown.splitlines() if line.startswith("| 1 ")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == markdown.splitlines()[2].count("|")
    assert "\\<script\\>" in markdown
    assert "\x1b" not in markdown
    _, text, _ = run(tmp_path, "--format", "json")
    assert json.loads(text)["groups"][0]["models"][0]["model"] == str(hostile)
    assert run(tmp_path, "--format", "csv", "-o", tmp_path / "out.csv")[0] == 0
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert [row["model"] for row in csv.DictReader(stream)] == [str(hostile)]


def accuracy_table(tmp_path: Path, count: int = 8) -> Path:
    path = tmp_path / "table.csv"
    rows = [f"m{i}.onnx,{10 + 3 * i},{0.05 * i + 0.1}" for i in range(count)]
    path.write_text("\n".join(["model,top5_error,Top-1 accuracy", *rows, "absent,1,1"]) + "\n")
    return path


def test_gain_against_error(run: Any, tmp_path: Path) -> None:
    from scipy import stats

    fleet.write_fleet(tmp_path / "m", 8)
    shutil.copy(tmp_path / "m" / "m0.onnx", tmp_path / "m" / "extra.onnx")
    table = accuracy_table(tmp_path)
    code, text, _ = run(tmp_path / "m", "--accuracy", table, "--format", "json")
    document = json.loads(text)
    assert code == 0
    assert document["accuracy"] == {
        "metrics": ["top5 error", "top1 error"], "unmatched": ["absent"],
        "models_without": [str(tmp_path / "m" / "extra.onnx")],
    }  # fmt: skip
    (group,) = document["groups"]
    assert len(group["models"]) == 9
    assert [(c["metric"], c["channel"], c["models"]) for c in group["correlations"]] == [
        (metric, channel, 8) for metric in ("top5 error", "top1 error") for channel in ("R", "G", "B", "mean")
    ]
    known = [model for model in group["models"] if model["error_percent"]]
    for found in group["correlations"]:
        pairs = [(m["gain_db"][found["channel"]], m["error_percent"][found["metric"]]) for m in known]
        assert found["spearman"]["value"] == pytest.approx(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
        assert found["kendall"]["value"] == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic)
        assert -1 <= found["spearman"]["low"] <= found["spearman"]["value"] <= found["spearman"]["high"] <= 1
    assert known[0]["error_percent"]["top1 error"] == pytest.approx(
        100 - 100 * (0.05 * int(Path(known[0]["model"]).stem[1:]) + 0.1)
    )
    _, again, _ = run(tmp_path / "m", "--accuracy", table, "--format", "json")
    assert again == text  # resampling has a fixed seed
    for form in ("table", "markdown"):
        _, shown, _ = run(tmp_path / "m", "--accuracy", table, "--format", form)
        assert f"{group['correlations'][0]['spearman']['value']:+.2f}" in shown
        assert "absent" in shown
        assert "input scale assumed for 8 of 8 models" in shown.replace("\\", "")


def test_table_can_give_each_models_input_scale(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 3)
    table = tmp_path / "t.csv"
    table.write_text('model,preprocess\nm0,caffe\nm1,"{""mean"": 127, ""std"": 128}"\n')
    saved = tmp_path / "r.json"
    assert run(tmp_path / "m", "--accuracy", table, "--preprocess", "unit", "--save-records", saved)[0] == 0
    scales = [record.scale for record in from_json(saved.read_text())]
    assert [scale.name for scale in scales] == ["caffe", "custom", "unit"]
    assert scales[1].mean == (127.0,)
    assert [scale.source for scale in scales] == ["option"] * 3


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_figure(run: Any, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    fleet.write_fleet(tmp_path / "m", 5)
    models.save(models.conv_net(size=(16, 16)), tmp_path / "m" / "m5.onnx")
    figure = tmp_path / f"f.{suffix}"
    arguments = (tmp_path / "m", "--accuracy", accuracy_table(tmp_path), "--plot", figure)
    code, _, err = run(*arguments)
    assert (code, err) == (0, f"wrote {figure}\n")
    content = figure.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[suffix])
    assert run(*arguments)[0] == 0
    # The PDF writer does not number its objects in a fixed order.
    assert suffix == "pdf" or figure.read_bytes() == content


def test_empty_figure_is_refused(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 1)
    (tmp_path / "t.csv").write_text("model,top1\nother,90\n")
    code, out, err = run(tmp_path / "m", "--accuracy", tmp_path / "t.csv", "--plot", tmp_path / "f.png")
    assert code == 2
    assert "m0.onnx" in out
    assert "nothing to draw" in err
    assert not (tmp_path / "f.png").exists()


DATA = ROOT.parent / "shared" / "data" / "models"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/models")
def test_trained_classifiers_with_published_errors(run: Any, tmp_path: Path) -> None:
    table = tmp_path / "imagenet.csv"
    table.write_text(
        "model,top-5 error %,preprocess\n"
        "squeezenet1.1_from_fp16,20.9,caffe\n"
        "mobilenet_v1_1.0_224,10.1,inception\n"
        "torchvision_mobilenet_v2,9.71,imagenet\n"
        "torchvision_resnet18,10.92,imagenet\n"
        'efficientnet_lite0,7.82,"{""mean"": 127, ""std"": 128}"\n'
    )
    wanted = [DATA / f"{line.partition(',')[0]}.onnx" for line in table.read_text().splitlines()[1:]]
    code, text, _ = run(*wanted, "--accuracy", table, "--format", "json")
    (group,) = json.loads(text)["groups"]
    assert code == 0
    assert [model["scale_source"] for model in group["models"]] == ["option"] * 5
    assert {c["models"] for c in group["correlations"]} == {5}
    # per 8-bit level, gains of networks for photographs of the same size are within tens of dB
    gains = [model["gain_db"]["mean"] for model in group["models"]]
    assert -40 < min(gains) <= max(gains) < 10


def test_records_survive_a_round_trip_through_the_command(run: Any, tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "m", 2)
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    assert run(tmp_path / "m", "--save-records", one)[0] == 0
    assert run(one, "--save-records", two)[0] == 0
    assert one.read_bytes() == two.read_bytes()
    assert to_json(from_json(one.read_text())) == one.read_text()
