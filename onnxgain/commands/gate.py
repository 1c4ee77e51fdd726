"""`onnxgain gate`: pass or fail models by their outputs and their gain, for continuous integration."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from onnxgain.analysis.policy import REQUIREMENTS
from onnxgain.commands.batching import BatchOptions, add_batch_options
from onnxgain.commands.gate_commands import Adviser
from onnxgain.commands.gate_config import RUN_KEYS, Config, layered, load_config
from onnxgain.commands.gate_outputs import GateOutputs
from onnxgain.commands.options import add_measure_options
from onnxgain.commands.output import OutputOptions, announce, charts_installed, output_options, require_charts
from onnxgain.commands.parameters import apply_options, fill
from onnxgain.commands.wording import called_from_python
from onnxgain.errors import OnnxgainError
from onnxgain.report import reporter
from onnxgain.report.reporter import FORMATS

if TYPE_CHECKING:
    from onnxgain.analysis.gate_result import GateResult
    from onnxgain.commands.gate_subjects import Settings, Subject

_bounds = apply_options(
    [
        click.option("--min-gain", type=float, metavar="DB", help="Least gain, dB."),
        click.option("--max-gain", type=float, metavar="DB", help="Largest gain, dB."),
        click.option(
            "--baseline",
            type=click.Path(),
            metavar="FILE",
            help="Records to compare with, from --update-baseline or `score --format json`. Its fingerprints are "
            "judged; without any, --max-change 0.1 --per-channel applies unless changes have another bound.",
        ),
        click.option(
            "--fingerprint/--no-fingerprint",
            default=None,
            help="Judge the answers to synthetic images. Default: if the baseline has them.",
        ),
        click.option(
            "--require",
            type=click.Choice(REQUIREMENTS),
            default="pass",
            show_default=True,
            help="The worst verdict on the answers that passes.",
        ),
        click.option("--max-change", type=float, metavar="DB", help="Largest change from the baseline, up or down."),
        click.option(
            "--with-confidence/--without-confidence",
            help="Bound changes of the whole gain instead of the gain without its confidence part.",
        ),
        click.option("--max-rise", type=float, metavar="DB", help="Largest rise above the baseline."),
        click.option("--max-drop", type=float, metavar="DB", help="Largest drop below the baseline."),
        click.option(
            "--per-channel/--no-per-channel",
            help="Apply the gain's bounds to every channel instead of the mean.",
        ),
        click.option("--same-class/--no-same-class", help="The class must be the baseline's."),
        click.option("--max-score-change", type=float, help="Largest change of the class's probability, 0 to 1."),
        click.option("--verified/--no-verified", help="The gradient must agree with finite differences (slow)."),
        click.option("--no-dead-channel", is_flag=True, help="Every channel must have a gain. May be the only check."),
        click.option(
            "--allow-scale-change",
            is_flag=True,
            help="Compare even if the input scale is not the baseline's: gains are per 8-bit level.",
        ),
        click.option("--allow-random", is_flag=True, help="Judge models with random operators."),
        click.option("--allow-float16", is_flag=True, help="Pass models whose answers float16 would change."),
    ]
)


@click.command(
    short_help="Pass or fail models, for continuous integration.",
    epilog="""\b
Examples:
  onnxgain gate --init
  onnxgain gate model.onnx --baseline main.json --update-baseline
  onnxgain gate model.onnx --baseline main.json
  onnxgain gate reexported.onnx --baseline main.json --require same-function
  onnxgain gate exports/ --baseline main.json --max-change 3 --same-class
  onnxgain gate model.onnx --max-gain 20 --min-gain -40
  onnxgain gate --format github --write junit=gate.xml --write markdown=comment.md

\b
Every option can be given in onnxgain.toml under [gate], or in pyproject.toml under
[tool.onnxgain.gate], with [[...overrides]] that match some models. The nearest of these files
from the current folder up to the repository's root is read; see `onnxgain docs gate` for what
may not stand in it.

Exit codes: 0 all passed, 3 a model needs a look (review), 1 a finding, 2 a model could not be
judged or is missing. An error beats a finding, a finding beats a review.
""",
)
@click.argument("models", nargs=-1, metavar="[MODELS]...")
@_bounds
@click.option("--update-baseline", is_flag=True, help="Write the baseline instead of comparing with it.")
@click.option(
    "--init",
    is_flag=True,
    help="Set up the gate for the models of this repository: write a configuration with the options given, a baseline "
    "and a workflow. Overwrites nothing.",
)
@click.option("--config", type=click.Path(dir_okay=False), metavar="FILE", help="Read this file's configuration.")
@add_measure_options
@add_batch_options
@output_options("gate", report=True)
@click.option(
    "--write",
    "writes",
    multiple=True,
    metavar="FORMAT=FILE",
    help="Also write it in another format, e.g. junit=gate.xml. Repeatable.",
)
@click.option(
    "--log",
    type=click.Choice(["mlflow"]),
    help="Also log metrics, the verdict and the report as an MLflow run on the server of MLFLOW_TRACKING_URI.",
)
def gate(
    models: tuple[str, ...],
    update_baseline: bool,
    init: bool,
    config: str | None,
    delivery: OutputOptions,
    writes: tuple[str, ...],
    log: str | None,
    **values: Any,
) -> None:
    """Pass or fail models by how their answers and their gain changed since a baseline.

    The answers to synthetic images show whether a model still computes the same function: same function, pass, review
    or fail. The gain shows at which frequencies it changed, and can have bounds of its own.

    MODELS are files, folders, globs, @list.txt, and files of saved records; by default, the models of the
    configuration. They are measured at the baseline's stimuli unless others are given. Whatever cannot be measured or
    compared (another stimulus, image size or input scale than the baseline's, a zero gradient) never passes.
    """
    from onnxgain.analysis.gate_result import EXIT_CODES, overall
    from onnxgain.commands.gate_subjects import make_subjects, settings_of
    from onnxgain.commands.gating import Gate, announce_baselines, warn
    from onnxgain.fleet.sources import collect_models

    context = click.get_current_context()
    if init:
        _initialize(models, delivery, values, context)
        return
    files = [_file(text) for text in writes]
    outputs = GateOutputs([delivery.out, delivery.report, *(path for _, path in files)])
    with outputs.fresh():
        delivery.check()
        if log is not None:
            from onnxgain.fleet.mlflow_files import require_mlflow

            require_mlflow(f"--log {log}")
        settings = load_config(config, context.command, context)
        chosen = {name: value for name, value in values.items() if _on_command_line(context, name)}
        if "baseline" in chosen:
            settings, left_out = settings.without_loosening()
            if left_out:
                keys = " and ".join(left_out)
                warn(f"{settings.path}: {keys} not applied: the command line names the baseline, so give it there too")
        run = {name: values[name] for name in RUN_KEYS} | dict(settings.run) | chosen

        def settings_for(model: str) -> Settings:
            return settings_of(_values(values, settings, chosen, model), model, update=update_baseline)

        arguments = _named(models, settings)
        sources = collect_models(arguments, notice=warn)
        if not models:
            sources = settings.contained(sources)
        gate = Gate(make_subjects(sources, settings_for), fill(BatchOptions, run), update_baseline, arguments)
        gate.refuse_own_baseline(sources)
        for pattern in settings.unused([subject.name for subject in gate.subjects]):
            warn(f"{settings.path}: the override for {pattern} fits no model")
        outputs.prepare(gate.inputs(sources, settings.path))
    adviser = Adviser(context.command, chosen, config)
    reporter.import_meanwhile("gate", delivery.form)
    results = [
        _advised(result, subject, adviser, _values(values, settings, chosen, subject.name), update=update_baseline)
        for result, subject in zip(gate.run(), gate.subjects, strict=True)
    ]
    written = gate.renew(results) if update_baseline else []
    if update_baseline:
        results = gate.renewed(results, written=bool(written))
    for form, path in files:
        reporter.report("gate", form, results, path)
        announce(path)
    if delivery.report is not None:
        reporter.report("gate", "html", results, delivery.report)
        announce(delivery.report)
    code = EXIT_CODES[overall(results)]
    _print(results, delivery, code)
    announce_baselines(written, update_baseline)
    if log is not None:
        from onnxgain.report.mlflow_run import log_gate

        click.echo(f"logged to {log_gate(results, page=charts_installed())}", err=True)
    if code:
        raise click.exceptions.Exit(code)


def _initialize(
    models: tuple[str, ...], delivery: OutputOptions, values: dict[str, Any], context: click.Context
) -> None:
    """Set up the gate in the current folder."""
    from onnxgain.commands.gate_init import Initialization
    from onnxgain.commands.gate_subjects import make_subjects, settings_of
    from onnxgain.commands.gating import Gate, warn
    from onnxgain.fleet.sources import collect_models
    from onnxgain.report.text.gate_setup import render_setup

    for name in ("update_baseline", "config", "writes", "log", "out", "report"):
        if context.params[name]:
            option = next(max(p.opts, key=len) for p in context.command.params if p.name == name)
            raise OnnxgainError("has no meaning with --init", where=option, remedy="leave one of them out")
    chosen = {name: value for name, value in values.items() if _on_command_line(context, name)}
    setup = Initialization(context.command, chosen, load_config(None, context.command, context).path)
    sources = collect_models(models or ["."], notice=warn)
    if not models:
        sources = setup.found(sources)
    asked = {name: value for name, value in values.items() if name not in RUN_KEYS} | {"baseline": setup.baseline}
    gate = Gate(
        make_subjects(sources, lambda model: settings_of(asked, model, update=True)), fill(BatchOptions, values), True
    )
    results, done = setup.complete(gate, bool(models), warn)
    for_people = delivery.form == "table" and reporter.CAPTURED.get() is None
    if not for_people:
        reporter.report("gate", delivery.form, results)
    click.echo(render_setup(done), nl=False, err=not for_people)


def _advised(
    result: GateResult, subject: Subject, adviser: Adviser, values: dict[str, Any], *, update: bool
) -> GateResult:
    """The result with the next commands, without those that would end in an error."""
    from onnxgain.analysis.gate_result import GOOD

    before = subject.before[0].model if subject.before and not subject.gone else None
    baseline = None if update else result.baseline
    classes_moved = result.function is not None and bool(result.function.moved)
    commands = adviser.commands(
        subject.argument,
        baseline,
        before,
        values,
        good=result.verdict in GOOD,
        renamed_from=subject.renamed_from,
    )
    return replace(
        result,
        commands=replace(
            commands,
            inspect=commands.inspect if subject.is_readable else None,
            look=commands.look if result.changes or result.differs_in_scale else None,
            accept=commands.accept if subject.renewable and result.may_be_accepted else None,
            layers=commands.layers if subject.has_same_layers and not classes_moved else None,
        ),
    )


def _file(text: str) -> tuple[str, str]:
    form, equals, path = text.partition("=")
    if form not in FORMATS["gate"] or not equals or not path:
        raise OnnxgainError(
            "is not FORMAT=FILE", where=f"--write {text}", remedy=f"the formats are {', '.join(FORMATS['gate'])}"
        )
    if form == "html":
        require_charts(f"--write {text}")
    return form, path


def _on_command_line(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is not ParameterSource.DEFAULT


def _values(values: dict[str, Any], config: Config, chosen: dict[str, Any], model: str) -> dict[str, Any]:
    """The parameters for a model: the command's defaults, the configuration, the command line."""
    merged = layered(config.values_for(model), chosen)
    return {name: merged.get(name, default) for name, default in values.items() if name not in RUN_KEYS}


def _named(models: Sequence[str], config: Config) -> Sequence[str]:
    if not models and not config.models:
        raise OnnxgainError(
            "no model is named",
            where="gate",
            remedy="name files or folders, or set `models` in the configuration; `onnxgain gate --init` writes one",
        )
    return models or config.models


def _print(results: Sequence[GateResult], delivery: OutputOptions, code: int) -> None:
    """Print or write the result. A closed pipe does not change the exit code."""
    from onnxgain.report.text.formatting import printable
    from onnxgain.report.text.gate_text import headline

    if delivery.form == "github" and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        from onnxgain.report.text.github import append_summary

        append_summary(results, summary)
    try:
        reporter.report("gate", delivery.form, results, delivery.out)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(code) from None
    if delivery.out is not None and not called_from_python():
        announce(delivery.out)
        click.echo(printable(headline(results)), err=True)
