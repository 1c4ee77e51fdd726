"""`onnxgain doctor`: versions, the runtime package, its providers, and what is wrong with the installation."""

from __future__ import annotations

from typing import Any

import click

from onnxgain.commands.output import OutputOptions, output_options
from onnxgain.errors import RuntimeUnavailableError

OLDEST_RUNTIME = (1, 20)
DOCTOR_SCHEMA = "onnxgain.doctor/1"
_PACKAGES = ("onnx", "onnx-ir", "numpy", "matplotlib", "pillow", "click", "rich")


@click.command(
    short_help="Check the installation.",
    epilog="""\b
Examples:
  onnxgain doctor
  onnxgain doctor --format json
""",
)
@output_options("doctor")
def doctor(delivery: OutputOptions) -> None:
    """Show versions, the runtime package and its execution providers, and what is wrong with the installation.

    The exit code is 2 if `onnxgain score` could not run, or if a package or plug-in for a device does not work.
    """
    delivery.check()
    findings = examine()
    delivery.deliver("doctor", findings)
    if delivery.form == "table":
        for problem in findings["problems"]:
            click.echo(f"problem: {problem}", err=True)
    if findings["problems"]:
        raise click.exceptions.Exit(2)


def examine() -> dict[str, Any]:
    """The state of the installation as JSON-able values."""
    import dataclasses
    import importlib.metadata
    import platform

    from onnxgain.engine import environment, gpu, runtime
    from onnxgain.engine.environment import VERSION
    from onnxgain.engine.integer_products import integer_products_saturate

    packages: dict[str, str | None] = {}
    problems = []
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            packages[name] = None
            problems.append(f"{name} is not installed; pip install --force-reinstall onnxgain")
    providers: list[str] = []
    saturate: bool | None = None
    cuda: dict[str, Any] | None = None
    unusable: dict[str, str] = {}
    found_plugins: list[dict[str, Any]] = []
    try:
        providers = list(runtime.load().get_available_providers())
        unusable = unusable_providers(providers)
        replaced = runtime_problems(environment.installed_runtimes())
        problems += replaced
        found_plugins = survey_plugins()
        problems += [plugin["problem"] for plugin in found_plugins if plugin["problem"]]
        saturate = integer_products_saturate()
        if "CUDAExecutionProvider" in providers:
            cuda = dataclasses.asdict(gpu.survey(runtime.cuda_version()))
        if "CUDAExecutionProvider" in unusable and not replaced:  # another package needs another CUDA
            problems.append(f"CUDA cannot be used: {unusable['CUDAExecutionProvider']}")
    except RuntimeUnavailableError as error:
        problems.append(str(error))
    return {
        "schema": DOCTOR_SCHEMA,
        "onnxgain": VERSION,
        "python": f"{platform.python_version()} {platform.system()} {platform.machine()}",
        "packages": packages,
        "runtimes": environment.installed_runtimes(),
        "providers": providers,
        "unusable": unusable,
        "cores": environment.usable_cores(),
        "problems": problems,
        "integer_products_saturate": saturate,
        "cuda": cuda,
        "plugins": found_plugins,
    }


def survey_plugins() -> list[dict[str, Any]]:
    """The packages that add execution providers: what each offers, or the problem that prevents it."""
    from onnxgain.engine import plugins, runtime

    return [
        {
            "package": plugin.package,
            "version": plugin.version,
            "providers": [{"name": offer.provider, "devices": list(offer.devices)} for offer in offers],
            "problem": None if error is None else str(error),
        }
        for plugin, offers, error in plugins.all_offers(runtime.load())
    ]


def unusable_providers(providers: list[str]) -> dict[str, str]:
    """The reasons that some of the runtime's built-in providers cannot be used here."""
    from onnxgain.engine.device import Device
    from onnxgain.engine.session import require_device
    from onnxgain.errors import DeviceError

    found = {}
    for provider in providers:
        if provider == "TensorrtExecutionProvider":
            continue  # part of the same package, but most machines with CUDA lack its libraries
        try:
            require_device(Device((provider,)))
        except DeviceError as error:
            remedy = "" if "onnxgain doctor" in (error.remedy or "") else f"; {error.remedy}"
            found[provider] = error.what.removeprefix("cannot be used: ") + remedy
    return found


def runtime_problems(runtimes: dict[str, str]) -> list[str]:
    """Problems of a runtime that loads: too old, or not installed by any package."""
    if not runtimes:
        return ["onnxruntime loads, but no installed package owns it; pip install --force-reinstall onnxruntime"]
    (name, version), *_ = runtimes.items()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_RUNTIME:
        needed = ".".join(map(str, OLDEST_RUNTIME))
        remedy = f"pip install --upgrade {name}"
        if "training" in name:  # the last one is 1.19.2
            remedy = f"pip uninstall -y {name}, then pip install onnxruntime; for `verify --against` keep it elsewhere"
        return [f"{name} {version} is too old, {needed} is needed; {remedy}"]
    return []
