"""Execution providers that packages of their own add to onnxruntime: onnxruntime-ep-openvino, -webgpu and so on.

They are found by what pip installed, never by what lies in a folder under test, and without running their Python code:
the one library that such a package brings is handed to the runtime. Imports nothing heavy.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxgain.engine.device import CPU_PROVIDER, OPENVINO_PROVIDER, PROVIDER_SUFFIX
from onnxgain.errors import DeviceError, first_line

OLDEST_RUNTIME = "1.23"
_PREFIX = "onnxruntime-ep-"
_LIBRARY = re.compile(
    r"(?:lib)?onnxruntime_providers_\w+\.(?:" + {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so") + ")"
)
_NEEDS = {"webgpu": "a GPU, and on Linux the Vulkan loader (libvulkan.so.1)", "nv-tensorrt-rtx": "an NVIDIA RTX GPU"}
"""What a plug-in that finds no device usually lacks."""


@dataclass(frozen=True)
class Plugin:
    """An installed package with an execution provider.

    Attributes:
        package: name of the distribution, such as "onnxruntime-ep-openvino".
        library: the provider's library.
    """

    package: str
    version: str
    library: Path

    @property
    def short(self) -> str:
        """ "openvino"."""
        return self.package.removeprefix(_PREFIX)


@dataclass(frozen=True)
class Offer:
    """A provider of a plug-in that the runtime has loaded, and the devices that it can use here, by name."""

    plugin: Plugin
    provider: str
    devices: tuple[str, ...]


@functools.cache
def installed_plugins() -> tuple[Plugin, ...]:
    """The plug-ins installed for this interpreter, by name. Packages without a library for this system are none."""
    found: dict[str, Plugin] = {}
    for place in _places():
        for folder in place.glob("onnxruntime_ep_*.dist-info"):
            distribution = importlib.metadata.Distribution.at(folder)
            name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"])).lower()
            for file in distribution.files or ():
                library = Path(str(distribution.locate_file(file)))
                if _LIBRARY.fullmatch(library.name) and library.is_file():
                    found.setdefault(name, Plugin(name, distribution.version, library.resolve()))
    return tuple(found[name] for name in sorted(found))


def _places() -> list[Path]:
    """Where pip installs. Not the rest of the search path, which may hold the current folder."""
    import site
    import sysconfig

    named = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        named.append(site.getusersitepackages())
    return [place for place in dict.fromkeys(Path(name).resolve() for name in named) if place.is_dir()]


_loaded: dict[str, Offer] = {}
"""By provider."""


def offers(onnxruntime: ModuleType, plugin: Plugin) -> tuple[Offer, ...]:
    """Load a plug-in, once in a process, and return what it offers.

    Raises:
        DeviceError: the runtime is too old, or cannot load it, or it finds no device.
    """
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        raise DeviceError(
            f"onnxruntime {onnxruntime.__version__} takes no plug-ins such as {plugin.package}",
            remedy=f"install onnxruntime {OLDEST_RUNTIME} or newer",
        )
    known = tuple(offer for offer in _loaded.values() if offer.plugin == plugin)
    if known:
        return known
    before = {device.ep_name for device in onnxruntime.get_ep_devices()}
    found = _devices(onnxruntime, plugin, before)
    if not found:
        try:
            onnxruntime.register_execution_provider_library(f"onnxgain {plugin.package}", str(plugin.library))
        except Exception as error:  # the runtime's exceptions share no base class
            if "already registered" not in str(error):
                said = first_line(Exception(str(error).rpartition("with error: ")[2]))
                raise DeviceError(
                    f"{plugin.package} {plugin.version} does not load: {said}",
                    remedy=f"pip install --upgrade onnxruntime {plugin.package}",
                ) from error
        found = _devices(onnxruntime, plugin, before)
    if not found:
        needs = next((text for short, text in _NEEDS.items() if plugin.short.startswith(short)), None)
        raise DeviceError(
            f"{plugin.package} {plugin.version} finds no device that it can use",
            remedy=f"it needs {needs}" if needs else f"see what {plugin.package} needs, or pip uninstall it",
        )
    for provider, devices in found.items():
        _loaded[provider] = Offer(plugin, provider, tuple(devices))
    return tuple(_loaded[provider] for provider in found)


def _devices(onnxruntime: ModuleType, plugin: Plugin, before: Container[str]) -> dict[str, list[str]]:
    """Names of a plug-in's devices by provider: those of its library, or, where none is named, of new providers."""
    found: dict[str, list[str]] = {}
    for device in onnxruntime.get_ep_devices():
        # "OpenVINOExecutionProvider.AUTO" is no device but a choice among them.
        library = dict(device.ep_metadata).get("library_path")
        own = device.ep_name not in before if library is None else library == str(plugin.library)
        if own and device.ep_name.endswith(PROVIDER_SUFFIX):
            found.setdefault(device.ep_name, []).append(_name(device))
    return found


def _name(device: Any) -> str:
    """ "CPU Intel(R) Xeon(R) Processor"."""
    kind = str(device.device.type).rpartition(".")[2]
    full = dict(device.ep_metadata).get("FULL_DEVICE_NAME") or device.device.vendor
    return f"{kind} {full}".strip()


def load_for(onnxruntime: ModuleType, provider: str) -> Offer | None:
    """The offer of a provider by an installed plug-in; None where none is named like it.

    Raises:
        DeviceError: the plug-in cannot be used.
    """
    wanted = re.sub(r"\W", "", provider.removesuffix(PROVIDER_SUFFIX)).lower()
    for plugin in installed_plugins():
        if plugin.short.replace("-", "").startswith(wanted):
            for offer in offers(onnxruntime, plugin):
                if offer.provider == provider:
                    return offer
    return None


def package_of(provider: str) -> str | None:
    """The package that would add a provider, of those on the package index; None for others."""
    short = {
        OPENVINO_PROVIDER: "openvino", "WebGpuExecutionProvider": "webgpu",
        "NvTensorRTRTXExecutionProvider": "nv-tensorrt-rtx",
    }.get(provider)  # fmt: skip
    return None if short is None else _PREFIX + short


def is_plugged(provider: str) -> bool:
    """Whether a provider comes from a plug-in that was loaded."""
    return provider in _loaded


def add_to(options: Any, onnxruntime: ModuleType, providers: tuple[str, ...]) -> None:
    """Have a session use providers of plug-ins: their CPU device where they have one, else the first.

    GPUs and NPUs compute in half precision unless told otherwise, and not all can be told.
    """
    for provider in providers:
        if provider != CPU_PROVIDER:
            devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
            chosen = min(devices, key=lambda device: not _name(device).startswith("CPU"))
            options.add_provider_for_devices([chosen], _settings(provider, chosen, options.intra_op_num_threads))


def _settings(provider: str, device: Any, threads: int) -> dict[str, str]:
    """Options of a provider. Unless told otherwise, OpenVINO rounds to bfloat16 on processors that multiply it."""
    if provider != OPENVINO_PROVIDER:
        return {}
    kind = dict(device.ep_metadata).get("ov_device", "CPU")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if kind == "CPU":
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return {"load_config": json.dumps({kind: settings})}


def all_offers(onnxruntime: ModuleType) -> Iterator[tuple[Plugin, tuple[Offer, ...], DeviceError | None]]:
    """Each installed plug-in with what it offers, or why it cannot be used."""
    for plugin in installed_plugins():
        try:
            yield plugin, offers(onnxruntime, plugin), None
        except DeviceError as error:
            yield plugin, (), error
