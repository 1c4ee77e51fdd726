"""Cached models are not measured again, and cache files are not trusted."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxgain.errors import UnreadableModelError, WorkerError
from onnxgain.fleet import cache, cached_result, pool
from onnxgain.fleet.batch import Cache, Request, Result, collect_models
from onnxgain.fleet.cached_result import CachedResult
from onnxgain.measure.record import Record, from_json, to_json
from onnxgain.model.input_scale import input_scale
from onnxgain.model.reading import Reading
from tests.support import fleet, models
from tests.support.batches import NO_CHILD, origins, run, timeless

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


def test_cached_models_are_not_measured_again(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    fleet.write_fleet(folder, 3)
    (folder / "garbage.onnx").write_bytes(b"no model")
    models.save(models.dead_relu(), folder / "dead.onnx")
    sources = collect_models([str(folder)])
    first = run(sources, cache=Cache(tmp_path / "cache"))
    assert origins(first) == ["measured"] * 5
    again = run(sources, cache=Cache(tmp_path / "cache"), command=NO_CHILD)
    assert origins(again) == ["cache"] * 5
    assert [(r.source, r.records, str(r.error)) for r in again] == [(r.source, r.records, str(r.error)) for r in first]
    assert [type(r.error) for r in again] == [type(r.error) for r in first]


def test_cache_key_is_content_not_name(tmp_path: Path) -> None:
    (path,) = fleet.write_fleet(tmp_path / "a", 1)
    run(collect_models([str(path)]), cache=Cache(tmp_path / "cache"))
    (tmp_path / "b").mkdir()
    renamed = path.rename(tmp_path / "b" / "other.onnx")
    os.utime(renamed, (1, 1))
    (result,) = run(collect_models([str(renamed)]), cache=Cache(tmp_path / "cache"), command=NO_CHILD)
    assert (result.records[0].model.name, result.records[0].model.path) == ("other.onnx", str(renamed))


def test_changed_content_of_same_size_and_time_is_measured(tmp_path: Path) -> None:
    (path,) = fleet.write_fleet(tmp_path, 1)
    (first,) = run(collect_models([str(path)]), cache=Cache(tmp_path / "cache"))
    before = path.stat()
    model = onnx.load(path)
    model.producer_name = "stset"
    path.write_bytes(model.SerializeToString())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    (second,) = run(collect_models([str(path)]), cache=Cache(tmp_path / "cache"))
    assert second.origin == "measured"
    assert second.records[0].model.sha256 != first.records[0].model.sha256


@pytest.mark.parametrize(
    "other",
    [
        {"projection": "logit"}, {"class_index": 1}, {"stimuli": ("noise",)}, {"stimuli": ("impulse", "noise")},
        {"reading": Reading(scale=input_scale("raw"))}, {"reading": Reading(scale=input_scale("raw", mean=1))},
        {"reading": Reading(image_shape=(12, 10))},
    ],
)  # fmt: skip
def test_different_request_is_measured(tmp_path: Path, other: dict[str, Any]) -> None:
    fleet.write_fleet(tmp_path, 1)
    sources = collect_models([str(tmp_path)])
    run(sources, cache=Cache(tmp_path / "cache"))
    assert origins(run(sources, Request(**other), cache=Cache(tmp_path / "cache"))) == ["measured"]
    assert origins(run(sources, Request(**other), cache=Cache(tmp_path / "cache"), command=NO_CHILD)) == ["cache"]
    assert origins(run(sources, cache=Cache(tmp_path / "cache"), command=NO_CHILD)) == ["cache"]


def test_cache_key_includes_photograph_contents(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    fleet.write_fleet(tmp_path, 1)
    sources = collect_models([str(tmp_path)])
    photo = tmp_path / "photo.png"
    request = Request(stimuli=(), photos=(photo,))
    origin = []
    for seed in (0, 0, 1):
        pixels = np.random.default_rng(seed).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photo)
        origin += origins(run(sources, request, cache=Cache(tmp_path / "cache")))
    assert origin == ["measured", "cache", "measured"]


def test_software_versions_are_part_of_the_cache_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.write_fleet(tmp_path, 1)
    sources = collect_models([str(tmp_path)])
    run(sources, cache=Cache(tmp_path / "cache"))
    for name in ("onnxgain", "source", "onnxruntime", "onnx"):
        changed = cache.software() | {name: "another"}
        with monkeypatch.context() as patch:
            patch.setattr(cache, "software", lambda changed=changed: changed)
            assert origins(run(sources, cache=Cache(tmp_path / "cache"))) == ["measured"]
    assert {"onnxgain", "source", "numpy", "onnx", "onnx-ir"} <= set(cache.software())


def external(path: Path, margin: float = 0.0, location: str = "weights.data") -> Path:
    path.parent.mkdir(exist_ok=True)
    return models.save(
        models.conv_net(margin=margin), path, save_as_external_data=True, location=location, size_threshold=0
    )


def test_external_data_is_part_of_the_content(tmp_path: Path) -> None:
    """Two snapshots with equal .onnx files and different external weights, which then change."""
    one, two = external(tmp_path / "one" / "m.onnx"), external(tmp_path / "two" / "m.onnx", margin=9.0)
    assert one.read_bytes() == two.read_bytes()
    sources = collect_models([str(one), str(two)])
    first = run(sources, cache=Cache(tmp_path / "cache"))
    assert origins(first) == ["measured"] * 2
    assert first[0].records[0].margin != first[1].records[0].margin
    again = run(sources, cache=Cache(tmp_path / "cache"), command=NO_CHILD)
    assert timeless(again) == timeless(first)
    data = tmp_path / "one" / "weights.data"
    before = data.stat()
    shutil.copy(tmp_path / "two" / "weights.data", data)
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = run(sources, cache=Cache(tmp_path / "cache"), command=NO_CHILD)
    assert changed[0].records[0].margin == first[1].records[0].margin


def test_missing_external_data_is_not_cached(tmp_path: Path) -> None:
    path = external(tmp_path / "m.onnx")
    (tmp_path / "weights.data").rename(tmp_path / "elsewhere")
    sources = collect_models([str(path)])
    for _ in range(2):
        (result,) = run(sources, cache=Cache(tmp_path / "cache"))
        assert (result.origin, type(result.error)) == ("measured", UnreadableModelError)
    (tmp_path / "elsewhere").rename(tmp_path / "weights.data")
    (result,) = run(sources, cache=Cache(tmp_path / "cache"))
    assert result.error is None


def test_process_errors_are_not_cached(tmp_path: Path) -> None:
    for name in ("segfault", "memory", "exit"):
        models.save(models.conv_net(), tmp_path / f"{name}.onnx")
    sources = collect_models([str(tmp_path)])
    for _ in range(2):
        results = run(sources, cache=Cache(tmp_path / "cache"), command=fleet.faulty_command(tmp_path))
        assert all(isinstance(result.error, WorkerError) for result in results)
        assert origins(results) == ["measured"] * 3
    assert all(result.error is None for result in run(sources, cache=Cache(tmp_path / "cache")))


def test_memory_error_is_cached_for_its_memory_limit(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    sources = collect_models([str(tmp_path)])
    limits = (800_000_000, 800_000_000, 900_000_000)
    origin = [origins(run(sources, cache=Cache(tmp_path / "cache"), memory_limit=limit))[0] for limit in limits]
    assert origin == ["measured", "cache", "measured"]


def test_a_model_that_changes_while_it_is_measured_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = fleet.write_fleet(tmp_path, 1)
    real = pool.Slot.measure

    def measure(self: pool.Slot, *arguments: Any) -> Result:
        models.save(models.conv_net(margin=3.0), path)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pool.Slot, "measure", measure)
        run(collect_models([str(path)]), cache=Cache(tmp_path / "cache"))
    assert not list((tmp_path / "cache").rglob("*"))


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"", lambda data: data[: len(data) // 2], lambda data: data + b" ",
        lambda data: data.replace(b"1", b"2", 1), lambda data: os.urandom(len(data)), lambda data: b"\n",
    ],
    ids=["empty", "cut", "longer", "another digit", "noise", "a line"],
)  # fmt: skip
def test_damaged_entry_is_a_miss_and_removed(tmp_path: Path, damage: Any) -> None:
    kept = Cache(tmp_path)
    kept.put("ab" * 32, "text 1")
    (entry,) = entries(tmp_path)
    entry.write_bytes(damage(entry.read_bytes()))
    assert kept.get("ab" * 32) is None
    assert not entry.exists()


def test_model_of_a_damaged_entry_is_measured_again(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 1)
    sources = collect_models([str(tmp_path)])
    first = run(sources, cache=Cache(tmp_path / "cache"))
    (entry,) = entries(tmp_path / "cache")
    entry.write_bytes(entry.read_bytes()[:-20])
    again = run(sources, cache=Cache(tmp_path / "cache"))
    assert origins(again) == ["measured"]
    assert timeless(again) == timeless(first)
    assert origins(run(sources, cache=Cache(tmp_path / "cache"), command=NO_CHILD)) == ["cache"]


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"records": "[]"}', '{"error": 3, "memory_limit": null}', "nonsense", '{"error": {}}']
)
def test_entry_with_invalid_content_is_a_miss(tmp_path: Path, text: str) -> None:
    fleet.write_fleet(tmp_path, 1)
    sources = collect_models([str(tmp_path)])
    folder = Cache(tmp_path / "cache")
    run(sources, cache=folder)
    (entry,) = entries(folder.folder)
    folder.put(entry.parent.name + entry.name, text)
    results = run(sources, cache=folder)
    assert (origins(results), results[0].error) == (["measured"], None)


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder_only_disables_the_cache(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "models", 1)
    (tmp_path / "cache").mkdir(mode=0o500)
    kept = Cache(tmp_path / "cache")
    assert run(collect_models([str(tmp_path / "models")]), cache=kept)[0].error is None
    assert "Permission denied" in (kept.trouble or "")


def test_file_as_cache_folder_only_disables_the_cache(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path / "models", 1)
    (tmp_path / "cache").write_text("")
    kept = Cache(tmp_path / "cache")
    assert run(collect_models([str(tmp_path / "models")]), cache=kept)[0].error is None
    assert kept.trouble


def test_a_full_disk_leaves_no_half_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device", str(self))

    kept = Cache(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        kept.put("ab" * 32, "text")
    assert "No space left on device" in (kept.trouble or "")
    assert entries(tmp_path) == []
    kept.put("ab" * 32, "text")
    assert kept.get("ab" * 32) == "text"


def test_leftovers_of_a_killed_run_are_removed_later(tmp_path: Path) -> None:
    Cache(tmp_path).put("ab" * 32, "text")
    for name, age in (("old", 3 * 24 * 3600), ("new", 0)):
        left = tmp_path / "unfinished" / name
        left.write_text("half")
        os.utime(left, (left.stat().st_mtime - age,) * 2)
    assert Cache(tmp_path).get("ab" * 32) == "text"
    assert [path.name for path in (tmp_path / "unfinished").iterdir()] == ["new"]


def test_many_threads_may_share_a_cache(tmp_path: Path) -> None:
    kept = [Cache(tmp_path) for _ in range(4)]
    wrong: list[str | None] = []

    def use(own: Cache) -> None:
        for i in range(200):
            key = f"{i % 7:064d}"
            own.put(key, f"text {i % 7}" * 1000)
            found = own.get(key)
            if found != f"text {i % 7}" * 1000:
                wrong.append(found)

    threads = [threading.Thread(target=use, args=(own,)) for own in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(entries(tmp_path)) == 7


@posix
def test_the_default_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, expected in (
        (str(tmp_path / "x"), tmp_path / "x"),
        ("relative", tmp_path / ".cache"),
        ("", tmp_path / ".cache"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache.default_folder() == expected / "onnxgain"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.default_folder() == tmp_path / "Library" / "Caches" / "onnxgain"


@posix
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (result,) = run(collect_models([str(tmp_path)]), cache=Cache(tmp_path / "cache"), command=NO_CHILD)
    assert "not a regular file" in str(result.error)


def test_cached_records_round_trip(tmp_path: Path) -> None:
    fleet.write_fleet(tmp_path, 1)
    (result,) = run(collect_models([str(tmp_path)]))
    records: tuple[Record, ...] = result.records
    assert tuple(from_json(to_json(records))) == records


# ------------------------------------------------------------------------------------------- while results are kept
@pytest.mark.parametrize("problem", [RuntimeError("while keeping"), KeyboardInterrupt()])
def test_a_problem_while_a_result_is_kept_ends_the_batch(
    problem: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised where the results are consumed, and nothing waits for a dead thread."""
    onnx.save(models.conv_net(size=(8, 8)), tmp_path / "model.onnx")

    def fail(self: CachedResult, result: Result, memory_limit: int | None) -> None:
        raise problem

    monkeypatch.setattr(CachedResult, "keep", fail)
    with pytest.raises(type(problem)):
        run(collect_models([str(tmp_path / "model.onnx")]), cache=Cache(tmp_path / "cache"))


def test_a_model_that_cannot_be_read_again_is_measured_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(models.conv_net(size=(8, 8)), tmp_path / "model.onnx")

    def fail(*arguments: Any) -> str:
        raise PermissionError("gone")

    monkeypatch.setattr(cached_result, "_content_digest", fail)
    sources = collect_models([str(tmp_path / "model.onnx")])
    for _ in range(2):
        (result,) = run(sources, cache=Cache(tmp_path / "cache"))
        assert (result.error, result.origin) == (None, "measured")
