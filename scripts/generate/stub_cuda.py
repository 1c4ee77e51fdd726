"""Find out, on a machine without a GPU, how onnxruntime-gpu would place nodes of a graph.

    python -m scripts.generate.stub_cuda FOLDER kernels                    write onnxgain/engine/cuda_kernels.json
    python -m scripts.generate.stub_cuda FOLDER placement MODEL.onnx ...   list the nodes that go to the CPU

Run it with a Python that has onnxruntime-gpu (Linux, x86-64) and this package's dependencies; it needs gcc and nm. It
builds stub libraries in FOLDER with the names and symbols of NVIDIA's, which report one device of compute capability
8.0 and compute nothing. With these, the runtime can load its CUDA provider, list the provider's kernels, and partition
a graph between CUDA and the CPU; running a graph needs a GPU.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from scripts import ROOT

TABLE = ROOT / "onnxgain" / "engine" / "cuda_kernels.json"
TYPES = ("float", "double", "int64", "int32", "bool", "uint8", "int8", "uint16", "int16")
"""Element types in gradient graphs."""

PRELUDE = r"""
#include <stdlib.h>
#include <string.h>
static int thing[4096];
int cudaMalloc(void **p, size_t n) { *p = malloc(n ? n : 1); return 0; }
int cudaHostAlloc(void **p, size_t n, unsigned f) { *p = malloc(n ? n : 1); return 0; }
int cudaMallocHost(void **p, size_t n) { *p = malloc(n ? n : 1); return 0; }
int cudaFree(void *p) { free(p); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemcpy(void *d, const void *s, size_t n, int k) { memcpy(d, s, n); return 0; }
int cudaMemcpyAsync(void *d, const void *s, size_t n, int k, void *t) { memcpy(d, s, n); return 0; }
int cudaGetDevice(int *d) { *d = 0; return 0; }
int cudaGetDeviceCount(int *d) { *d = 1; return 0; }
int cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
int cudaMemGetInfo(size_t *f, size_t *t) { *f = *t = (size_t)8 << 30; return 0; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 0 : 1024; return 0; }
int cudaPointerGetAttributes(void *a, const void *p) { memset(a, 0, 88); return 0; }
const char *cudaGetErrorString(int e) { return "stub"; }
const char *cudaGetErrorName(int e) { return "stub"; }
/* offsets of cudaDeviceProp in CUDA 13 */
int cudaGetDeviceProperties(char *p, int d) {
  memset(p, 0, 1008);
  strcpy(p, "stub");
  *(size_t *)(p + 288) = (size_t)8 << 30;                                  /* totalGlobalMem */
  *(size_t *)(p + 296) = 48 << 10;                                         /* sharedMemPerBlock */
  *(int *)(p + 308) = 32, *(int *)(p + 320) = 1024;                        /* warpSize, maxThreadsPerBlock */
  *(int *)(p + 336) = *(int *)(p + 340) = *(int *)(p + 344) = 65535;       /* maxGridSize */
  *(int *)(p + 360) = 8, *(int *)(p + 384) = 100, *(int *)(p + 604) = 2048; /* major, multiProcessorCount */
  return 0;
}
int cudaStreamCreateWithFlags(void **s, unsigned f) { *s = thing; return 0; }
int cudaEventCreateWithFlags(void **e, unsigned f) { *e = thing; return 0; }
int cublasCreate_v2(void **h) { *h = thing; return 0; }
int cublasLtCreate(void **h) { *h = thing; return 0; }
int cudnnCreate(void **h) { *h = thing; return 0; }
size_t cudnnGetVersion(void) { return 91000; }
size_t cudnnGetCudartVersion(void) { return 13000; }
void **__cudaRegisterFatBinary(void *b) { return (void **)thing; }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=["kernels", "placement"])
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if os.environ.get("LD_LIBRARY_PATH") != str(folder):
        build(folder)
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_LIBRARY_PATH": str(folder)})
    if options.what == "kernels":
        TABLE.write_text(table(), encoding="utf-8")
    else:
        for model in options.models:
            print(f"{Path(model).name}: {placement(model)}", flush=True)


def build(folder: Path) -> None:
    """Build the stub libraries, with the names that the provider looks for."""
    import onnxruntime

    folder.mkdir(parents=True, exist_ok=True)
    names, symbols = {"libcudnn.so.9"}, set()
    for library in Path(onnxruntime.__path__[0], "capi").glob("libonnxruntime_providers_*.so"):
        dynamic = subprocess.run(["objdump", "-p", library], check=True, capture_output=True, text=True).stdout
        names |= set(re.findall(r"NEEDED\s+(lib(?:cu|nv)\S+)", dynamic))
        listed = subprocess.run(["nm", "-D", "--undefined-only", library], check=True, capture_output=True, text=True)
        symbols |= set(re.findall(r" U ((?:cu|__cu|create|get[IP])\w+)", listed.stdout))
        # cuDNN is loaded at run time, so the names of its functions are strings.
        symbols |= {found.decode() for found in re.findall(rb"\0((?:cudnn|cufft)[A-Z]\w+)(?=\0)", library.read_bytes())}
    defined = set(re.findall(r"^[\w ]+?\**(\w+)\(", PRELUDE, re.MULTILINE))
    source = folder / "stub.c"
    source.write_text(PRELUDE + "".join(f"long {name}(void) {{ return 0; }}\n" for name in sorted(symbols - defined)))
    for name in names:
        command = ["gcc", "-w", "-shared", "-fPIC", source, f"-Wl,-soname,{name}", "-o", folder / name]
        subprocess.run(command, check=True)


def table() -> str:
    """The kernels for the standard operators at opset 18 and later, one operator per line.

    {"Cast": [[since, until or null, {type constraint: types}], ...]}: a kernel supports version v of an operator if
    since is v, or if v is between since and until.
    """
    import onnx
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found: dict[str, dict[tuple[int, int | None], dict[str, set[str]]]] = collections.defaultdict(dict)
    for kernel in state.get_all_opkernel_def():
        if kernel.provider != "CUDAExecutionProvider" or kernel.domain:
            continue
        try:
            oldest = onnx.defs.get_schema(kernel.op_name, 18).since_version
        except onnx.defs.SchemaError:
            oldest = 18
        since, until = kernel.version_range
        if until < oldest:
            continue
        served = found[kernel.op_name].setdefault((since, until if until < 1 << 30 else None), {})
        for constraint, types in kernel.type_constraints.items():
            served.setdefault(constraint, set()).update(
                re.findall(r"^tensor\((\w+)\)$", "\n".join(types), re.MULTILINE)
            )
    lines = [f'"onnxruntime": "{onnxruntime.__version__}"']
    for operator in sorted(found):
        versions = [
            [*versions, {name: [t for t in TYPES if t in types] for name, types in sorted(served.items())}]
            for versions, served in sorted(found[operator].items(), key=lambda item: item[0][0])
        ]
        lines.append(f'"{operator}": {json.dumps(versions)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def placement(path: str) -> str:
    """Counts of nodes by provider, and operators placed on the CPU by the runtime and by our table."""
    warnings.simplefilter("ignore")
    from onnxgain.engine.cuda_placement import left_to_cpu
    from onnxgain.engine.device import parse_device
    from onnxgain.engine.session import Session
    from onnxgain.errors import OnnxgainError
    from onnxgain.model.classifier import Reading, load_classifier
    from onnxgain.model.differentiate import differentiate

    device = parse_device("cuda")
    assert device is not None
    try:
        try:
            classifier = load_classifier(path)
        except OnnxgainError:
            classifier = load_classifier(path, Reading(image_shape=(1, 28, 28)))
        graph = differentiate(classifier, target=device.target, scaled=False)
        placed: Any = Session(graph, threads=1, device=device, traced=True).placement()
    except OnnxgainError as error:
        return f"error: {error}"
    counts = collections.Counter(node.provider for node in placed)
    there = collections.Counter(node.operator for node in placed if node.provider == "CPUExecutionProvider")
    ours = collections.Counter(node.op_type for node, _ in left_to_cpu(graph))
    return f"{dict(counts)}; on the CPU {dict(there) or 'nothing'}; by our table {dict(ours) or 'nothing'}"


if __name__ == "__main__":
    main()
