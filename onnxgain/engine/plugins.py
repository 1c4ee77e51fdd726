"""Plug-in execution providers of onnxruntime, from packages such as onnxruntime-ep-openvino and onnxruntime-ep-webgpu.

We look only where pip installs packages, never in a folder under test, and do not run the packages' Python code: we
pass the path of a package's library to the runtime. Imports nothing heavy.
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
"""What is usually missing if a plug-in finds no device."""


@dataclass(frozen=True)
class Plugin:
    """An installed package with an execution provider.

    Attributes:
        package: the name of the distribution, such as "onnxruntime-ep-openvino".
        version: the version of the distribution.
        library: the path of the provider's library.
    """

    package: str
    version: str
    library: Path

    @property
    def short(self) -> str:
        """The package name without its prefix: "openvino"."""
        return self.package.removeprefix(_PREFIX)


@dataclass(frozen=True)
class Offer:
    """A provider of a loaded plug-in, and the names of the devices that it can use on this machine."""

    plugin: Plugin
    provider: str
    devices: tuple[str, ...]


@functools.cache
def installed_plugins() -> tuple[Plugin, ...]:
    """The plug-ins installed for this interpreter, sorted by name; only packages with a library for this system."""
    found: dict[str, Plugin] = {}
    for directory in _site_packages():
        for folder in directory.glob("onnxruntime_ep_*.dist-info"):
            distribution = importlib.metadata.Distribution.at(folder)
            name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"])).lower()
            for file in distribution.files or ():
                library = Path(str(distribution.locate_file(file)))
                if _LIBRARY.fullmatch(library.name) and library.is_file():
                    found.setdefault(name, Plugin(name, distribution.version, library.resolve()))
    return tuple(found[name] for name in sorted(found))


def _site_packages() -> list[Path]:
    """The folders where pip installs packages. The rest of the search path may contain the current folder."""
    import site
    import sysconfig

    names = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        names.append(site.getusersitepackages())
    return [folder for folder in dict.fromkeys(Path(name).resolve() for name in names) if folder.is_dir()]


_loaded: dict[str, Offer] = {}
"""The offers of loaded plug-ins, by provider."""


def offers(onnxruntime: ModuleType, plugin: Plugin) -> tuple[Offer, ...]:
    """Load a plug-in, once per process, and return its providers.

    Raises:
        DeviceError: the runtime is too old or cannot load the plug-in, or the plug-in finds no device.
    """
    if not hasattr(onnxruntime, "register_execution_provider_library"):
        raise DeviceError(
            f"onnxruntime {onnxruntime.__version__} does not support plug-ins such as {plugin.package}",
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
    """Names of a plug-in's devices by provider.

    A device belongs to the plug-in if its metadata names the plug-in's library, or, if it names none, if its provider
    was not there ``before``.
    """
    found: dict[str, list[str]] = {}
    for device in onnxruntime.get_ep_devices():
        # "OpenVINOExecutionProvider.AUTO" is not a device: it chooses one.
        library = dict(device.ep_metadata).get("library_path")
        own = device.ep_name not in before if library is None else library == str(plugin.library)
        if own and device.ep_name.endswith(PROVIDER_SUFFIX):
            found.setdefault(device.ep_name, []).append(_name(device))
    return found


def _name(device: Any) -> str:
    """The name of a device: "CPU Intel(R) Xeon(R) Processor"."""
    kind = str(device.device.type).rpartition(".")[2]
    full = dict(device.ep_metadata).get("FULL_DEVICE_NAME") or device.device.vendor
    return f"{kind} {full}".strip()


def load_for(onnxruntime: ModuleType, provider: str) -> Offer | None:
    """Load the installed plug-in for a provider; None if there is no plug-in of that name.

    Raises:
        DeviceError: the plug-in cannot be used.
    """
    name = re.sub(r"\W", "", provider.removesuffix(PROVIDER_SUFFIX)).lower()
    for plugin in installed_plugins():
        if plugin.short.replace("-", "").startswith(name):
            for offer in offers(onnxruntime, plugin):
                if offer.provider == provider:
                    return offer
    return None


def package_of(provider: str) -> str | None:
    """The package on the package index that adds a provider, or None."""
    short = {
        OPENVINO_PROVIDER: "openvino", "WebGpuExecutionProvider": "webgpu",
        "NvTensorRTRTXExecutionProvider": "nv-tensorrt-rtx",
    }.get(provider)  # fmt: skip
    return None if short is None else _PREFIX + short


def is_plugged(provider: str) -> bool:
    """Whether a provider comes from a loaded plug-in."""
    return provider in _loaded


def add_to(options: Any, onnxruntime: ModuleType, providers: tuple[str, ...]) -> None:
    """Add providers of plug-ins to session options, each with its CPU device or else its first device.

    The CPU comes first because GPUs and NPUs compute in half precision by default, and this cannot be changed for all.
    """
    for provider in providers:
        if provider != CPU_PROVIDER:
            devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
            chosen = min(devices, key=lambda device: not _name(device).startswith("CPU"))
            options.add_provider_for_devices([chosen], _settings(provider, chosen, options.intra_op_num_threads))


def _settings(provider: str, device: Any, threads: int) -> dict[str, str]:
    """Options of a provider. By default, OpenVINO rounds to bfloat16 on CPUs that support it."""
    if provider != OPENVINO_PROVIDER:
        return {}
    kind = dict(device.ep_metadata).get("ov_device", "CPU")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    if kind == "CPU":
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    return {"load_config": json.dumps({kind: settings})}


def all_offers(onnxruntime: ModuleType) -> Iterator[tuple[Plugin, tuple[Offer, ...], DeviceError | None]]:
    """Each installed plug-in with its providers, or with the error why it cannot be used."""
    for plugin in installed_plugins():
        try:
            yield plugin, offers(onnxruntime, plugin), None
        except DeviceError as error:
            yield plugin, (), error
