"""Reports in a real browser draw, sort, filter and unfold without errors or network requests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxgain.analysis.comparison import Comparison, Failure, compare_records
from onnxgain.analysis.function_tree import FunctionTree, Link
from onnxgain.analysis.policy import Policy
from onnxgain.analysis.verdict import evaluate
from onnxgain.report.html import compare as html_compare
from onnxgain.report.html import diff as html_diff
from onnxgain.report.html import gate as html_gate
from onnxgain.report.html import model_table
from tests.report.test_html import HOSTILE, changed_report, hostile_page
from tests.support.browser import Browser, Page, why_none
from tests.support.reports import a_preview, a_record, comparison_of

pytest.importorskip("vl_convert")
pytestmark = pytest.mark.skipif(why_none() is not None, reason=str(why_none()))

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
MODELS = 30
WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as started:
        yield started


def write(folder: Path, page: str) -> Path:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [a_record(number, assumed=number % 4 == 0) for number in range(MODELS)]
    previews = [a_preview(i % 8) for i in range(MODELS)]
    comparison = comparison_of(records, previews=previews, failures=(Failure("bad.onnx", "not an ONNX model"),))
    page = html_compare.render_html(comparison, title="Comparison", when=WHEN)
    return write(tmp_path_factory.mktemp("compare"), page)


def assert_quiet(page: Page) -> None:
    assert page.complaints() == []
    assert [address.partition(":")[0] for address in page.requests()] == ["file"]


def column(page: Page, label: str) -> list[str]:
    """The visible cells of a column of the table of models, from top to bottom."""
    found: list[str] = page.run(
        f"[...document.querySelectorAll('.models tbody tr:not([hidden]) td[data-label=\"{label}\"]')]"
        ".map(cell => cell.textContent)"
    )
    return [text.replace("\N{MINUS SIGN}", "-") for text in found]


# ------------------------------------------------------------------------------------------- the comparison
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_comparison_is_drawn(browser: Browser, comparison_file: Path, width: int, dark: bool) -> None:
    page = browser.open(comparison_file, width=width, dark=dark)
    page.all_drawn()
    points = page.run("document.querySelectorAll('[data-chart] path[aria-roledescription=point]').length")
    assert points == 4 * MODELS * 2 // 3
    assert page.run("document.querySelectorAll('.chart .mark-line.role-mark path').length") == model_table.SELECTED
    assert page.run("[...document.images].every(i => i.complete && i.naturalWidth === 96)")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("Math.max(...[...document.querySelectorAll('.chart svg')].map(s => s.clientWidth))") <= width
    background = np.array(Image.open(io.BytesIO(page.screenshot())).convert("L"))[5, 5]
    assert (background < 60) == dark
    assert_quiet(page)


def test_click_on_a_column_head_sorts(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    assert column(page, "log-odds dB") == sorted(column(page, "log-odds dB"), key=float, reverse=True)
    page.click("th[data-label='mean dB'] button")
    assert column(page, "mean") == sorted(column(page, "mean"), key=float)
    assert page.run("document.querySelector('th[data-label=\"mean dB\"]').ariaSort") == "ascending"
    page.click("th[data-label='mean dB'] button")
    assert column(page, "mean") == sorted(column(page, "mean"), key=float, reverse=True)
    page.click("th[data-label='model'] button")
    labels = page.run("[...document.querySelectorAll('.name .open')].map(b => b.textContent)")
    assert labels == [f"model_{number}.onnx" for number in range(MODELS)]
    assert page.run("document.querySelectorAll('th[aria-sort]').length") == 1
    assert_quiet(page)


@pytest.mark.parametrize("clicks", [1, 2])
def test_entries_without_a_value_come_last(browser: Browser, comparison_file: Path, clicks: int) -> None:
    page = browser.open(comparison_file)
    for _ in range(clicks):
        page.click("th[data-label='top5 error %'] button")
    errors = column(page, "top5 error")
    assert errors[-10:] == [""] * 10
    assert [float(error) for error in errors[:-10]] == sorted(map(float, errors[:-10]), reverse=clicks == 2)


def test_the_filter_hides_rows(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.click("input[type=search]")
    page.type("MODEL_2 onnx")
    labels = page.run(
        "[...document.querySelectorAll('.models tbody tr:not([hidden]) .name .open')].map(b => b.textContent)"
    )
    assert sorted(labels) == sorted(["model_2.onnx", *(f"model_2{digit}.onnx" for digit in range(10))])
    assert page.run("document.querySelector('.count').textContent") == "11 of 30"
    assert len(column(page, "mean")) == 11
    assert_quiet(page)


def point_of(page: Page, place: int) -> tuple[float, float]:
    page.run(f"document.querySelectorAll('[data-chart] path[aria-roledescription=point]')[{place}].id = 'wanted'")
    return page.middle("#wanted")


def test_a_pointer_over_a_point_shows_its_model(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.all_drawn()
    x, y = point_of(page, 3)
    page.move(x - 1, y)
    page.move(x, y)
    page.wait("document.querySelector('#vg-tooltip-element.visible')")
    shown = page.run("document.querySelector('#vg-tooltip-element').innerText")
    label = page.run("document.querySelector('#wanted').getAttribute('aria-label')")
    assert "model_" in shown and "gain dB" in shown
    model = next(word for word in shown.split() if word.startswith("model_"))
    assert model in label
    page.move(1, 1)
    page.wait("!document.querySelector('#vg-tooltip-element.visible')")
    assert_quiet(page)


def test_a_click_opens_a_model(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.click(".models tbody tr:nth-child(2) .shot .open")
    page.wait("document.querySelector('dialog').open")
    shown = page.run("document.querySelector('dialog').innerText")
    label = page.run("document.querySelector('.models tbody tr:nth-child(2) .name .open').textContent")
    assert label in shown and f"exports/{label}" in shown
    for expected in ("mean gain", "sha256", "Hann", "onnxruntime", "frequency response, G"):
        assert expected in shown
    assert page.run("[...document.querySelectorAll('dialog img')].every(i => i.complete && i.naturalWidth === 96)")
    assert page.run("document.querySelectorAll('dialog img').length") == 6
    page.click("dialog .close")
    page.wait("!document.querySelector('dialog').open")
    page.all_drawn()
    x, y = point_of(page, 0)
    page.click_at(x, y)
    page.wait("document.querySelector('dialog').open")
    assert_quiet(page)


def test_the_theme_can_be_switched(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.all_drawn()

    def colours() -> Any:
        return page.run(
            "[document.body, document.querySelector('.chart text')].map((e, i) => getComputedStyle(e)[i ? 'fill' : "
            "'backgroundColor'])"
        )

    light = colours()
    page.click("#theme")
    dark = colours()
    assert light[0] == "rgb(255, 255, 255)" and light[0] != dark[0] and light[1] != dark[1]
    page.click("#theme")
    assert colours() == light
    assert_quiet(page)


def test_gallery_and_profile_selection(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.all_drawn()
    page.click("button[data-gallery]")
    assert page.run("document.querySelector('.shot img').clientWidth") > 90
    page.click("button[data-gallery]")
    lines = "document.querySelectorAll('figure[data-profiles] .mark-line.role-mark path').length"
    page.click(".models tbody tr:nth-child(1) input")
    page.wait(f"{lines} === {model_table.SELECTED - 1}")
    page.click(".models tbody tr:nth-child(9) input")
    page.click(".models tbody tr:nth-child(10) input")
    page.wait(f"{lines} === {model_table.SELECTED + 1}")
    page.run(
        "(() => { const s = document.querySelector('select[data-channel-of]'); s.value = 'R'; "
        "s.dispatchEvent(new Event('change')) })()"
    )
    page.wait(f"{lines} === {model_table.SELECTED + 1}")
    assert_quiet(page)


def test_it_can_be_printed(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file, dark=True)
    page.all_drawn()
    printed = page.pdf()
    assert printed.startswith(b"%PDF") and len(printed) > 100_000
    assert_quiet(page)


def test_200_models_are_one_page(browser: Browser, tmp_path: Path) -> None:
    """`scripts/benchmarks/report_seconds.py` measures how fast it opens."""
    records = [a_record(number) for number in range(200)]
    previews = [a_preview(i % 8) for i in range(len(records))]
    page = browser.open(write(tmp_path, html_compare.render_html(comparison_of(records, previews=previews))))
    assert page.run("document.querySelectorAll('.models tbody tr').length") == 200
    page.all_drawn()
    assert_quiet(page)


# --------------------------------------------------------------------------------------- hostile, diff, gate
def test_hostile_names_run_no_script(browser: Browser, tmp_path: Path) -> None:
    page = browser.open(write(tmp_path, hostile_page()))
    page.all_drawn()
    for place in range(len(HOSTILE)):
        page.run(f"document.querySelectorAll('.name .open')[{place}].click()")
        assert page.run("document.querySelector('dialog').open")
        page.run("document.querySelector('dialog').close()")
    assert page.run("document.querySelectorAll('script').length") == 3
    assert page.run("document.querySelectorAll('dialog script, dialog b, main b svg, main iframe').length") == 0
    assert_quiet(page)


def test_policy_blocks_unescaped_scripts(browser: Browser, tmp_path: Path) -> None:
    attack = "<script>window.struck = 1</script><img src=x onerror='window.struck = 2'><img src='http://127.0.0.1:9/'>"
    page = browser.open(write(tmp_path, hostile_page().replace("<footer>", attack + "<footer>")))
    page.all_drawn()
    assert page.run("window.struck === undefined")
    assert len(page.complaints()) >= 3


def test_a_difference_is_drawn(browser: Browser, tmp_path: Path) -> None:
    report = changed_report()
    page = browser.open(write(tmp_path, html_diff.render_html(report, when=WHEN)))
    page.all_drawn()
    assert page.run("document.querySelectorAll('.chart .mark-line.role-mark path').length") == 3 * 2 + 3
    assert page.run("[...document.images].length") == 18
    assert_quiet(page)


def test_a_gate_is_drawn_and_unfolds(browser: Browser, tmp_path: Path) -> None:
    before, after = a_record(0), a_record(3)
    policy = Policy(max_change=0.1)
    results = [evaluate(policy, [after], [one], model=f"m{i}.onnx") for i, one in enumerate((after, before, after))]
    page = browser.open(write(tmp_path, html_gate.render_html(results, when=WHEN)))
    page.all_drawn()
    assert page.run("document.querySelectorAll('.chart.drawn').length") == 1
    page.click("#model2 summary")
    page.wait("document.querySelectorAll('.chart.drawn').length === 2")
    page.click("th[data-label='model'] button")
    assert page.run("[...document.querySelectorAll('.models .name a')].map(a => a.textContent)") == [
        "m0.onnx", "m1.onnx", "m2.onnx",
    ]  # fmt: skip
    assert_quiet(page)


# ---------------------------------------------------------------------------- filters, and state in the address
POINTS = "document.querySelectorAll('[data-chart] path[aria-roledescription=point]').length"
LINES = "document.querySelectorAll('figure[data-profiles] .mark-line.role-mark path').length"
SHOWN_HEADS = "[...document.querySelectorAll('.models th:not([hidden])')].map(th => th.dataset.label)"


def test_filtering_filters_the_charts(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.all_drawn()
    page.click("input[type=search]")
    page.type("model_2")
    page.wait(f"{POINTS} < {4 * MODELS * 2 // 3}")
    shown = page.run("[...document.querySelectorAll('.models tbody tr:not([hidden]) td[data-label=\"top5 error\"]')]"
                     ".filter(cell => cell.textContent).length")  # fmt: skip
    page.wait(f"{POINTS} === {4 * shown}")
    chosen = page.run("document.querySelectorAll('.models tbody tr:not([hidden]) .choose input:checked').length")
    page.wait(f"{LINES} === {chosen}")
    assert_quiet(page)


def test_link_restores_the_view(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.click("th[data-label='model'] button")
    page.click(".models tbody tr:nth-child(8) .choose input")
    page.click("input[type=search]")
    page.type("model_1")
    page.run(
        "(() => { const s = document.querySelector('select[data-channel-of]'); s.value = 'R'; "
        "s.dispatchEvent(new Event('change')) })()"
    )
    fragment = page.run("location.hash")
    rows = "[...document.querySelectorAll('.models tbody tr:not([hidden])')].map(row => row.dataset.model)"
    chosen = "[...document.querySelectorAll('.choose input')].map(box => box.checked)"
    seen = [page.run(text) for text in (rows, chosen)]
    again = browser.open(comparison_file, fragment=fragment)
    assert [again.run(text) for text in (rows, chosen)] == seen
    assert again.run("document.querySelector('input[type=search]').value") == "model_1"
    assert again.run("document.querySelector('select[data-channel-of]').value") == "R"
    assert again.run("document.querySelector('th[aria-sort]').dataset.label") == "model"
    assert_quiet(again)


def test_invalid_link_state_is_ignored(browser: Browser, comparison_file: Path) -> None:
    fragment = "#/sort0=99.x&chosen0=a.b&channel0=nothing&filter0=%3Cb%3E&sort9=1&gallery0=1"
    page = browser.open(comparison_file, fragment=fragment)
    assert column(page, "mean") == []
    assert page.run("document.querySelector('.count').textContent") == f"0 of {MODELS}"
    assert_quiet(page)


def test_only_differing_columns_filter(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    before = page.run(SHOWN_HEADS)
    page.click("input[data-differing]")
    after = page.run(SHOWN_HEADS)
    assert "scale" in before and "scale" not in after  # all are imagenet
    assert {"model", "mean dB", "class", "score"} <= set(after)
    page.click("input[data-differing]")
    assert page.run(SHOWN_HEADS) == before
    assert_quiet(page)


def test_headings_have_tooltips(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    titles = page.run("[...document.querySelectorAll('.models th button')].filter(b => !b.closest('th').title).length")
    assert titles <= 2  # a model's name, and an error by its name in the table


def test_the_text_of_charts_is_large_enough(browser: Browser, comparison_file: Path) -> None:
    page = browser.open(comparison_file)
    page.all_drawn()
    sizes = "[...document.querySelectorAll('.chart text')].map(text => parseFloat(getComputedStyle(text).fontSize))"
    assert min(page.run(sizes)) >= 12


def test_wide_content_scrolls_within_its_container(browser: Browser, tmp_path: Path) -> None:
    policy = Policy(max_change=0.1)
    results = [evaluate(policy, [a_record(3)], [a_record(0)], model="exports/" + "long_name_" * 9 + ".onnx")]
    page = browser.open(write(tmp_path, html_gate.render_html(results, when=WHEN)), width=390)
    page.all_drawn()
    assert page.run("document.documentElement.scrollWidth") <= 390
    cut = "[...document.querySelectorAll('table')].filter(t => t.scrollWidth > t.parentElement.clientWidth + 1"
    assert page.run(f"{cut} && !t.closest('.scroll')).length") == 0


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_deep_tree_of_long_names_scrolls_within_its_box(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    names = tuple(f"exports/{'long_name_' * 12}{number}.onnx" for number in range(23))
    children = (Link(name, names[n], "different function", 0.5, n + 1) for n, name in enumerate(names[1:]))
    tree = FunctionTree(names, ((0.5,) * 23,) * 23, (Link(names[0]), *children))
    monkeypatch.setattr(Comparison, "functions", property(lambda _: tree))
    comparison = comparison_of([a_record(number) for number in range(23)])
    page = browser.open(write(tmp_path, html_compare.render_html(comparison, when=WHEN)), width=width)
    page.all_drawn()
    box = "document.querySelector('#functions pre').parentElement"
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(f"{box}.scrollWidth > {box}.clientWidth")
    assert len(page.run(f"{box}.textContent").split("\n")) == 23
    assert "errors" in page.run("[...document.querySelectorAll('.summary dt')].map(e => e.textContent)")


def test_a_comparison_without_errors_has_no_row_for_them(browser: Browser, tmp_path: Path) -> None:
    comparison = compare_records([a_record(0), a_record(1)])
    page = browser.open(write(tmp_path, html_compare.render_html(comparison, when=WHEN)), width=1280)
    assert "errors" not in page.run("[...document.querySelectorAll('.summary dt')].map(e => e.textContent)")
