"""The cache of native code: fast when it is the file that was written, never loaded when not."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import wasmtime

import wasmgraph
from tests.runtime.wat_graphs import WatGraph
from wasmgraph.runtime import cache as native_cache
from wasmgraph.runtime.cache import NativeCache, open_cache
from wasmgraph.runtime.source import Source

X = {"x": np.arange(4, dtype=np.float32)}
CODE = b"native code" * 1000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder that `load` uses in this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "wasmgraph" / "native"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever Wasmtime compiles a graph (the probe, of a few bytes, is none)."""
    sizes: list[int] = []
    original = wasmtime.Module.__init__

    def counting(self: wasmtime.Module, engine: wasmtime.Engine, wasm: bytes) -> None:
        if len(wasm) > 600:
            sizes.append(len(wasm))
        original(self, engine, wasm)

    monkeypatch.setattr(wasmtime.Module, "__init__", counting)
    return sizes


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return WatGraph().write(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> NativeCache:
    opened = open_cache(tmp_path / "own")
    assert opened is not None
    return opened


def run(path: Path, **options: object) -> None:
    with wasmgraph.load(path, **options) as graph:  # type: ignore[arg-type]
        np.testing.assert_array_equal(graph.run(X)["y"], 2 * X["x"])


def entry(folder: Path) -> Path:
    (path,) = folder.glob("*.cwasm")
    return path


def age(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cache believe that what lies there was written an hour ago: its seals are settled."""
    now = time.time_ns
    monkeypatch.setattr(native_cache.time, "time_ns", lambda: now() + 3600 * 10**9)


def test_the_second_load_compiles_nothing(graph: Path, folder: Path, compiled: list[int]) -> None:
    run(graph)
    run(graph)
    assert len(compiled) == 1


def test_a_copy_of_the_graph_shares_the_entry(
    graph: Path, folder: Path, compiled: list[int], tmp_path: Path
) -> None:
    run(graph)
    copy = tmp_path / "copy.wasm"
    copy.write_bytes(graph.read_bytes())
    run(copy)
    assert len(compiled) == 1


def test_a_graph_of_other_content_under_the_same_name_is_compiled(
    graph: Path, folder: Path, compiled: list[int], tmp_path: Path
) -> None:
    run(graph)
    run(graph)
    WatGraph(rest='(data (i32.const 5000) "other")').write(tmp_path)
    run(graph)
    assert len(compiled) == 2


def test_the_entry_depends_on_the_engines_settings(
    graph: Path, folder: Path, compiled: list[int]
) -> None:
    run(graph)
    run(graph, timeout=10)
    assert len(compiled) == 2
    run(graph, timeout=20)
    assert len(compiled) == 2


def test_without_the_cache_nothing_is_written(graph: Path, folder: Path) -> None:
    run(graph, cache=False)
    assert not folder.exists()


def test_everything_is_the_users_alone(graph: Path, folder: Path) -> None:
    run(graph)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert not list(folder.glob("*.tmp"))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_a_byte_and_set_back_the_times(path: Path) -> None:
    before = path.stat()
    flip_a_byte(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(wasmtime.Module(wasmtime.Engine(), "(module)").serialize())
    other.chmod(0o600)
    os.replace(other, path)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def loosen_the_mode(path: Path) -> None:
    path.chmod(0o620)


def make_a_symlink(path: Path) -> None:
    target = path.parent.parent / "target"
    os.replace(path, target)
    path.symlink_to(target)


def make_a_hard_link(path: Path) -> None:
    os.link(path, path.parent.parent / "second-name")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def drop_the_seal(path: Path) -> None:
    path.with_suffix(".seal").unlink()


def change_the_seal(path: Path) -> None:
    flip_a_byte(path.with_suffix(".seal"))


def empty_the_seal(path: Path) -> None:
    path.with_suffix(".seal").write_bytes(b"")


def forge_the_seal(path: Path) -> None:
    """What somebody writes who knows the format, but not the key."""
    flip_a_byte(path)
    seal = path.with_suffix(".seal")
    _, _, body = seal.read_bytes().partition(b"\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest().encode()
    body = body[:12] + digest + body[12 + 64 :]
    seal.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def change_the_key(path: Path) -> None:
    (path.parent / "key").write_bytes(os.urandom(32))


def loosen_the_key(path: Path) -> None:
    (path.parent / "key").chmod(0o644)


TAMPERINGS: list[Callable[[Path], None]] = [
    flip_a_byte,
    flip_a_byte_and_set_back_the_times,
    replace_by_another,
    truncate,
    loosen_the_mode,
    make_a_symlink,
    make_a_hard_link,
    drop_the_seal,
    change_the_seal,
    empty_the_seal,
    forge_the_seal,
    change_the_key,
    loosen_the_key,
]


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_an_entry_that_was_touched_is_never_loaded(
    graph: Path,
    folder: Path,
    compiled: list[int],
    tamper: Callable[[Path], None],
    settled: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(graph)
    if settled:
        age(folder, monkeypatch)
        run(graph)  # sealed anew, so that the file's place is proof enough
    tamper(entry(folder))
    loaded: list[str] = []
    monkeypatch.setattr(
        wasmtime.Module, "deserialize_file", lambda _, path: loaded.append(path) or 1 / 0
    )
    run(graph)
    assert not loaded
    assert len(compiled) == 2
    assert "compiling again" in caplog.text
    monkeypatch.undo()


def test_an_entry_compiled_again_is_used_the_next_time(
    graph: Path, folder: Path, compiled: list[int]
) -> None:
    run(graph)
    flip_a_byte(entry(folder))
    run(graph)
    run(graph)
    assert len(compiled) == 2


def test_an_entry_moved_with_its_content_is_accepted_and_sealed_anew(
    graph: Path, folder: Path, compiled: list[int]
) -> None:
    run(graph)
    path = entry(folder)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    os.replace(copy, path)  # as after a restored backup: another inode, other times
    run(graph)
    assert len(compiled) == 1


def test_an_entry_cannot_stand_in_for_another(cache: NativeCache) -> None:
    cache.store("a", CODE)
    cache.store("b", CODE[::-1])
    for suffix in (".cwasm", ".seal"):
        os.replace(cache.folder / f"a{suffix}", cache.folder / f"b{suffix}")
    assert cache.load("b", lambda source: source) is None


def test_a_settled_entry_is_loaded_without_reading_it(
    cache: NativeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store("a", CODE)
    age(cache.folder, monkeypatch)
    assert cache.load("a", lambda source: "first") == "first"
    monkeypatch.setattr(native_cache, "_sha256", lambda descriptor: 1 / 0)
    assert cache.load("a", lambda source: "second") == "second"


def test_a_fresh_entry_is_hashed_since_its_clock_is_coarse(
    cache: NativeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.store("a", CODE)
    reads: list[int] = []
    original = native_cache._sha256
    monkeypatch.setattr(
        native_cache, "_sha256", lambda descriptor: reads.append(1) or original(descriptor)
    )
    cache.load("a", lambda source: source)
    cache.load("a", lambda source: source)
    assert len(reads) == 2


def test_what_the_engine_gets_is_the_descriptor_that_was_checked(cache: NativeCache) -> None:
    cache.store("a", CODE)

    def deserialize(path: str) -> bytes:
        os.replace(cache.folder / "key", cache.folder / "a.cwasm")  # after the check
        return Path(path).read_bytes()

    assert cache.load("a", deserialize) == CODE


def digest_of(cache: NativeCache, path: Path) -> str:
    with Source(path) as source:
        return cache.digest_of(source)


def test_the_digest_of_a_source_is_remembered_until_it_changes(
    cache: NativeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "graph.wasm"
    path.write_bytes(b"one")
    age(cache.folder, monkeypatch)
    expected = hashlib.sha256(b"one").hexdigest()
    assert digest_of(cache, path) == expected
    monkeypatch.setattr(Source, "sha256", lambda source: "hashed")
    assert digest_of(cache, path) == expected
    path.write_bytes(b"two")
    assert digest_of(cache, path) == "hashed"


def test_a_source_just_written_is_not_remembered(cache: NativeCache, tmp_path: Path) -> None:
    path = tmp_path / "graph.wasm"
    path.write_bytes(b"one")
    digest_of(cache, path)
    assert not list(cache.folder.glob("source-*"))


def test_what_is_compiled_is_stored_under_its_own_digest(
    graph: Path, folder: Path, compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(NativeCache, "digest_of", lambda cache, source: "of another content")
        run(graph)
    run(graph)
    assert len(compiled) == 1


# Working without a cache


def test_a_cache_folder_that_is_a_file_costs_only_time(
    graph: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("in the way")
    run(graph)
    assert "not cached" in caplog.text


def test_a_cache_folder_that_cannot_be_written_costs_only_time(
    graph: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    run(graph)
    monkeypatch.setattr(native_cache.tempfile, "mkstemp", full)
    run(graph, timeout=10)
    assert "No space left" in caplog.text


def test_a_folder_in_the_place_of_an_entry_costs_only_time(graph: Path, folder: Path) -> None:
    run(graph)
    make_a_folder(entry(folder))
    run(graph)


def test_a_loose_cache_folder_is_closed(graph: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    run(graph)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_symlink_in_the_place_of_the_folder_is_not_followed(
    graph: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)
    run(graph)
    assert not list(elsewhere.iterdir())
    assert "not a folder of this user" in caplog.text


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert open_cache() is None


def test_a_relative_xdg_folder_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = open_cache()
    assert cache is not None
    assert cache.folder == tmp_path / ".cache" / "wasmgraph" / "native"


# Bounded size


def test_the_least_recently_used_entries_go_first(cache: NativeCache) -> None:
    now = time.time()
    for number, name in enumerate("abc"):
        cache.store(name, CODE)
        os.utime(cache.folder / f"{name}.seal", (now, now - 1000 + number))
    cache.load("a", lambda source: source)  # used: b is the oldest now
    cache.prune(max_bytes=2 * len(CODE))
    assert sorted(path.name for path in cache.folder.glob("*.cwasm")) == ["a.cwasm", "c.cwasm"]
    assert not (cache.folder / "b.seal").exists()


def test_leftovers_of_a_killed_process_go(cache: NativeCache) -> None:
    old, new = cache.folder / "x.tmp", cache.folder / "y.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.prune()
    assert not old.exists()
    assert new.exists()


def test_a_discarded_entry_is_a_warning_of_the_log_only(
    cache: NativeCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.store("a", CODE)

    def refuse(path: str) -> str:
        raise wasmtime.WasmtimeError("made for another version")

    with caplog.at_level(logging.WARNING):
        assert cache.load("a", refuse) is None
    assert "refused by the engine: made for another version" in caplog.text
    assert not list(cache.folder.glob("a.*"))
