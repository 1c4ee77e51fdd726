"""Libraries of operators are loaded only if given and are recorded; their operators have no derivative."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.support import models

Run = Callable[..., tuple[int, str, str]]

# The runtime's table of functions never changes at its front; so this needs no header of it. The numbers are places in
# that table, OrtApi, in the order of onnxruntime_c_api.h; OrtCustomOp is there too.
SOURCE = """
#include <stddef.h>
#include <stdint.h>
typedef struct { void *const *(*api)(uint32_t); const char *(*version)(void); } Base;
static void *const *api;
#define CALL(place, ...) (((void *(*)())api[place])(__VA_ARGS__))
enum { CreateCustomOpDomain = 26, CustomOpDomain_Add = 27, AddCustomOpDomain = 28, GetTensorMutableData = 51,
       GetDimensionsCount = 61, GetDimensions = 62, GetTensorShapeElementCount = 64, GetTensorTypeAndShape = 65,
       KernelContext_GetInput = 90, KernelContext_GetOutput = 91, ReleaseTensorTypeAndShapeInfo = 99 };
typedef struct Op {
  uint32_t version;
  void *(*create)(const struct Op *, const void *, const void *);
  const char *(*name)(const struct Op *), *(*provider)(const struct Op *);
  int (*input_type)(const struct Op *, size_t);
  size_t (*inputs)(const struct Op *);
  int (*output_type)(const struct Op *, size_t);
  size_t (*outputs)(const struct Op *);
  void (*compute)(void *, void *), (*destroy)(void *);
  int (*input_kind)(const struct Op *, size_t), (*output_kind)(const struct Op *, size_t);
  void *later[32];
} Op;
static void *create(const Op *op, const void *a, const void *b) { return (void *)op; }
static const char *name(const Op *op) { return "Twice"; }
static const char *provider(const Op *op) { return NULL; }
static int floats(const Op *op, size_t i) { return 1; }
static size_t one(const Op *op) { return 1; }
static int required(const Op *op, size_t i) { return 0; }
static void destroy(void *kernel) {}
static void compute(void *kernel, void *context) {
  void *x, *y, *shape;
  float *from, *to;
  size_t rank, count;
  int64_t dims[8];
  CALL(KernelContext_GetInput, context, (size_t)0, &x);
  CALL(GetTensorTypeAndShape, x, &shape);
  CALL(GetDimensionsCount, shape, &rank);
  CALL(GetDimensions, shape, dims, rank);
  CALL(GetTensorShapeElementCount, shape, &count);
  CALL(ReleaseTensorTypeAndShapeInfo, shape);
  CALL(KernelContext_GetOutput, context, (size_t)0, dims, rank, &y);
  CALL(GetTensorMutableData, x, &from);
  CALL(GetTensorMutableData, y, &to);
  for (size_t i = 0; i < count; i++) to[i] = FACTOR * from[i];
}
static Op op = {8, create, name, provider, floats, one, floats, one, compute, destroy, required, required};
#ifndef EMPTY
void *RegisterCustomOps(void *options, const Base *base) {
  static void *domain;
  api = base->api(8);
  if (!domain) {
    CALL(CreateCustomOpDomain, "acme", &domain);
    CALL(CustomOpDomain_Add, domain, &op);
  }
  return CALL(AddCustomOpDomain, options, domain);
}
#endif
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile the library; further arguments go to the compiler."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "cc", "clang"))), None)
    if sys.platform == "win32" or compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("library")
    (folder / "twice.c").write_text(SOURCE)

    def make(name: str, *arguments: str) -> Path:
        flags = ["-std=gnu11", "-w", "-shared", "-fPIC", "-DFACTOR=2", *arguments]
        subprocess.run([compiler, *flags, "-o", folder / name, folder / "twice.c"], check=True)
        return folder / name

    return make


@pytest.fixture(scope="module")
def library(build: Callable[..., Path]) -> Path:
    return build("libtwice.so")


def model(place: str, folder: Path, *, custom: bool = True, typed: bool = True) -> Path:
    """A classifier with acme.Twice, or the same computation in standard operators, at some place."""
    net = models.Net()
    x = net.input("image", ["N", 3, 8, 8])

    def twice(value: str) -> str:
        return net("Twice", value, domain="acme") if custom else net("Add", value, value)

    shape: list[int | str] = []
    if place == "weights":
        x, shape = net("Mul", x, twice(net.constant([[[0.5]], [[0.7]], [[-0.3]]]))), [3, 1, 1]
    elif place == "after Sign":
        x = net("Mul", x, twice(net("ReduceMax", net("Sign", x), keepdims=0)))
    else:
        x, shape = twice(x), ["N", 3, 8, 8]
    models.add_head(net, models.add_linear(net, models.add_features(net, x, 3), 8, 4), 4, "logits")
    made = net.model()
    for node in made.graph.node:
        if node.domain == "acme" and typed:
            made.graph.value_info.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, shape))
    return models.save(made, folder / "m.onnx")


@pytest.mark.parametrize("place", ["weights", "after Sign"])
@pytest.mark.parametrize("options", [(), ("--timeout", "60")])
def test_an_operator_that_needs_no_derivative(
    place: str, options: tuple[str, ...], library: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(library.parent)
    command = ("score", model(place, tmp_path), "--format", "json", *options)
    code, out, err = run(*command, "--custom-ops", library.name)
    assert (code, err) == (0, "")
    (record,) = json.loads(out)["records"]
    (entry,) = record["engine"]["custom_ops"]
    assert entry["name"] == "libtwice.so" and len(entry["sha256"]) == 64
    model(place, tmp_path, custom=False)
    (plain,) = json.loads(run(*command)[1])["records"]
    assert plain["engine"]["custom_ops"] == []
    np.testing.assert_allclose(record["gain"]["channels"], plain["gain"]["channels"], atol=1e-4)
    assert record["score"] == pytest.approx(plain["score"], rel=1e-6)


def test_custom_operators_have_no_derivative(library: Path, run: Run, tmp_path: Path) -> None:
    file = model("between image and class", tmp_path)
    code, out, err = run("score", file, "--custom-ops", library)
    assert (code, out) == (2, "") and "operator acme.Twice has no gradient for its input" in err
    code, out, _ = run("inspect", file, "--custom-ops", library, "--format", "json")
    assert code == 2
    assert [gap["operator"] for gap in json.loads(out)["without_gradient"]] == ["Twice"]


def test_no_library_is_loaded_unless_given(library: Path, run: Run, tmp_path: Path) -> None:
    file = model("weights", tmp_path)
    shutil.copy(library, tmp_path)
    for command in (("score", file), ("score", file, "--timeout", "60")):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert err == (
            f"error: {file}: onnxruntime cannot load the model: Fatal error: acme:Twice(-1) is not a registered "
            "function/op; if a library has this operator, name it with --custom-ops\n"
        )
    code, _, err = run("score", model("weights", tmp_path, typed=False), "--custom-ops", library)
    assert code == 2 and "declare types and shapes of what the others compute (value_info)" in err


def test_invalid_libraries_are_refused(build: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    file, text, empty = model("weights", tmp_path), tmp_path / "text.so", build("empty.so", "-DEMPTY")
    text.write_text("text")
    for given, says in (
        (tmp_path / "none.so", "no such file; check the path"),
        (text, "cannot be loaded: "),
        (empty, "cannot be loaded: "),
    ):
        for command in ("score", "compare"):
            code, out, err = run(command, file, "--custom-ops", given, *(["--no-cache"] * (command == "compare")))
            assert code == 2 and f"--custom-ops {given}: {says}" in " ".join((out + err).split()), out + err


def test_results_depend_on_the_librarys_content(
    library: Path, build: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    """The cache key includes the content of a library, not its name."""
    file, gains = model("weights", tmp_path), []
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder, built in (("a", library), ("b", build("libthrice.so", "-UFACTOR", "-DFACTOR=3")), ("a", library)):
        given = shutil.copy(built, tmp_path / folder / "lib.so")
        common = ("compare", file, "--custom-ops", given, "--cache", tmp_path / "cache", "--format", "json")
        code, out, err = run(*common)
        assert (code, err) == (0, "")
        gains.append(json.loads(out)["groups"][0]["models"][0]["gain_db"])
    assert gains[0] == gains[2] != gains[1]


def test_crashing_library_fails_only_its_model(build: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    crashing = build("libcrash.so", "-UFACTOR", "-DFACTOR=(*(volatile float *)8)")
    code, out, err = run("score", model("weights", tmp_path), "--timeout", "60", "--custom-ops", crashing)
    assert (code, out) == (2, "") and "was killed by SIGSEGV" in err


def test_libraries_are_not_sent_to_a_cluster(library: Path, run: Run, tmp_path: Path) -> None:
    code, out, err = run("compare", model("weights", tmp_path), "--custom-ops", library, "--ray")
    assert (code, out) == (2, "")
    assert err == "error: --custom-ops: libraries are not sent to other machines; measure here, without --ray\n"
