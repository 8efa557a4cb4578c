"""Linking a bundle: what is written, what it reports, and that a failure leaves nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import bundles
from tests.link.raw_abi import Host
from wasmgraph.bundle import Bundle, Kernel, Step, write_bundle
from wasmgraph.errors import ModelError, ToolchainError, UnsupportedModelError, WasmgraphError
from wasmgraph.link import crate_folder, find_rust, link
from wasmgraph.link import executor as executor_under_test
from wasmgraph.link import module as module_under_test
from wasmgraph.link.executor import executor_archive
from wasmgraph.progress import Reporter
from wasmgraph.wasmfile import ABI_EXPORTS, WASI_MODULE, check_graph, parse_wasm

Linked = Callable[[str], Path]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its length and time of change."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def test_a_graph_imports_only_wasi_functions_and_exports_only_the_abi(linked: Linked) -> None:
    file = parse_wasm(linked("add").read_bytes())
    assert {(item.module, item.kind) for item in file.imports} == {(WASI_MODULE, "func")}
    assert {export.name for export in file.exports} == ABI_EXPORTS


def test_the_metadata_describe_the_graph(linked: Linked) -> None:
    metadata = check_graph(linked("chain").read_bytes())
    assert [(t.name, t.dtype, t.shape) for t in metadata.inputs] == [("x", "float32", (4,))]
    assert [t.name for t in metadata.outputs] == ["y", "w", "same"]
    assert metadata.model.name == "tiny.onnx"
    assert metadata.producer == {"wasmgraph": "0.1.0", "rustc": find_rust().version}
    assert [step.nodes for step in metadata.steps] == [("first",), ("second",)]
    assert (metadata.sizes.weights, metadata.sizes.arena, metadata.sizes.io) == (80, 128, 128)


def test_the_report_agrees_with_the_file_and_its_metadata(tmp_path: Path) -> None:
    report = link(bundles.chain_bundle(), tmp_path / "chain.wasm")
    data = report.path.read_bytes()
    assert report.file_nbytes == len(data) == report.code_nbytes + report.weights_nbytes
    sizes = check_graph(data).sizes
    assert (sizes.code, sizes.weights) == (report.code_nbytes, report.weights_nbytes)
    assert (sizes.arena, sizes.io) == (report.arena_nbytes, report.io_nbytes)


def test_the_executor_is_small(linked: Linked) -> None:
    # 77 KB with Rust 1.95, 90 KB with 1.63; the project's limit with all kernels is 600 KB.
    assert linked("add").stat().st_size < 100_000


def test_only_the_kernels_keep_their_names(linked: Linked) -> None:
    # One subsection (1, function names) of one entry: index in two bytes, length, name.
    names = parse_wasm(linked("scale").read_bytes()).custom["name"]
    assert names[0] == 1
    assert names[2] == 1
    assert names.endswith(b"\x05scale")
    assert len(names) < 12


def test_io_and_arena_take_no_room_in_the_file(linked: Linked, tmp_path: Path) -> None:
    bundle = bundles.chain_bundle()
    large = replace(bundle.graph, io_nbytes=100 << 20, arena_nbytes=200 << 20)
    report = link(replace(bundle, graph=large), tmp_path / "large.wasm")
    assert report.file_nbytes < linked("chain").stat().st_size + 100
    memory = parse_wasm(report.path.read_bytes()).memory
    assert memory is not None
    assert memory.minimum * 65536 >= 300 << 20


def test_the_same_bundle_gives_the_same_bytes_wherever_it_is_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    for name in ("one", "a somewhat longer name"):
        (tmp_path / name / "cwd").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name / "cwd")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        files.append(link(bundles.chain_bundle(), Path("out.wasm")).path.read_bytes())
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0]
    assert str(crate_folder()).encode() not in files[0]


def test_the_users_own_build_settings_change_nothing(
    linked: Linked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("[build]\nrustflags = ['--no-such-flag']\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no executor is built yet
    monkeypatch.setenv("CARGO_HOME", str(tmp_path))
    monkeypatch.setenv("RUSTFLAGS", "--no-such-flag")
    monkeypatch.setenv("RUSTC_WRAPPER", "/no/such/wrapper")
    monkeypatch.setenv("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
    monkeypatch.setenv("CARGO_BUILD_TARGET_DIR", str(tmp_path / "target"))
    out = link(bundles.scale_bundle(), tmp_path / "scale.wasm").path
    assert out.read_bytes() == linked("scale").read_bytes()


def test_the_executor_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    link(bundles.add_bundle(), tmp_path / "first.wasm")
    monkeypatch.setattr(executor_under_test, "build_archive", None)  # whoever calls it fails
    link(bundles.add_bundle(), tmp_path / "second.wasm")
    assert (tmp_path / "first.wasm").read_bytes() == (tmp_path / "second.wasm").read_bytes()


def test_the_executor_is_built_anew_where_its_sources_or_compiler_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = executor_archive(find_rust(), Reporter(), tmp_path / "one")
    newer = replace(find_rust(), version="1.999.0")
    second = executor_archive(newer, Reporter(), tmp_path / "two")
    sources = executor_under_test._sources()
    sources["src/lib.rs"] += b"\n// changed\n"
    monkeypatch.setattr(executor_under_test, "_sources", lambda: sources)
    third = executor_archive(find_rust(), Reporter(), tmp_path / "three")
    assert len({first, second, third}) == 3


def test_a_cache_open_to_other_users_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "wasmgraph" / "executor"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    out = link(bundles.add_bundle(), tmp_path / "out.wasm").path
    assert Host(out.read_bytes()).call("wg_abi") == 1
    assert list(folder.iterdir()) == []


def test_linking_writes_nothing_into_the_crate(tmp_path: Path) -> None:
    before = snapshot(crate_folder())
    link(bundles.add_bundle(), tmp_path / "add.wasm")
    assert snapshot(crate_folder()) == before


def test_links_may_run_at_once(linked: Linked, tmp_path: Path) -> None:
    names = ["add", "scale", "chain"]
    expected = [linked(name).read_bytes() for name in names]
    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(link, getattr(bundles, f"{name}_bundle")(), tmp_path / name)
            for name in names
        ]
    assert [job.result().path.read_bytes() for job in jobs] == expected


def test_many_weights_lie_where_the_kernel_reads_them(tmp_path: Path) -> None:
    bundle = bundles.scale_bundle()
    params = bytes(3 << 20) + np.float32([9, 8, 7, 6]).tobytes()
    weights = replace(bundle.graph.steps[0].buffers[1], offset=3 << 20)
    x, _, y = bundle.graph.steps[0].buffers
    step = replace(bundle.graph.steps[0], buffers=(x, weights, y))
    graph = replace(bundle.graph, steps=(step,), params_nbytes=len(params))
    host = Host(link(Bundle(graph, bundle.object_code, params), tmp_path / "w").path.read_bytes())
    host.give(0, np.ones(4, np.float32))
    assert host.call("wg_run") == 0
    assert host.floats(0, 4) == [9, 8, 7, 6]


def test_names_of_any_characters_survive(tmp_path: Path) -> None:
    name = 'a"b\\c{}\n\0 ü 網 \U0001f600 #]'
    bundle = bundles.failing_bundle()
    graph = bundle.graph
    graph = replace(
        graph,
        inputs=(replace(graph.inputs[0], name=name),),
        steps=(replace(graph.steps[0], nodes=(name,)),),
    )
    data = link(replace(bundle, graph=graph), tmp_path / "names.wasm").path.read_bytes()
    assert check_graph(data).inputs[0].name == name
    host = Host(data)
    assert host.call("wg_run") == 1
    assert host.error() == f"input '{name}' was not given"
    host.give(0, np.ones(4, np.float32))
    assert host.call("wg_run") == 1
    assert host.error() == f"the kernel of {name} failed with code 1"


def test_an_unknown_symbol_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"graph\.o needs nobody_defines_this"):
        link(bundles.orphan_bundle(), tmp_path / "out.wasm")
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_that_takes_another_number_of_pointers_is_an_error(tmp_path: Path) -> None:
    bundle = bundles.add_bundle()
    a, b, _ = bundle.graph.steps[0].buffers
    graph = replace(
        bundle.graph, kernels=(Kernel("add", 2, ""),), steps=(Step(0, (a, b), (), stage=0),)
    )
    with pytest.raises(ToolchainError, match="signature mismatch: add"):
        link(replace(bundle, graph=graph), tmp_path / "out.wasm")
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_none_is_an_error(tmp_path: Path) -> None:
    bundle = replace(bundles.add_bundle(), object_code=b"not wasm at all")
    with pytest.raises(ToolchainError, match="linking failed") as caught:
        link(bundle, tmp_path / "out.wasm")
    assert "graph.o" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_whose_weights_do_not_match_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"17 bytes of weights, its graph\.json expects 16"):
        link(replace(bundles.scale_bundle(), params=bytes(17)), tmp_path / "out.wasm")


def test_more_memory_than_wasm_has_is_an_error(tmp_path: Path) -> None:
    bundle = bundles.chain_bundle()
    graph = replace(bundle.graph, arena_nbytes=2**31 - 1, io_nbytes=2**31 - 1)
    with pytest.raises(UnsupportedModelError, match="32-bit WebAssembly has 4294967296"):
        link(replace(bundle, graph=graph), tmp_path / "out.wasm")


@pytest.mark.parametrize("where", ["nowhere/out.wasm", "file/out.wasm", "folder"])
def test_an_output_path_that_cannot_be_written_is_an_error(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    before = snapshot(tmp_path)
    with pytest.raises(WasmgraphError, match="cannot write") as caught:
        link(bundles.add_bundle(), tmp_path / where)
    assert caught.value.exit_code == 1
    assert str(tmp_path / where) in caught.value.message
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    graph = bundles.make_graph((), (), (), (), operators={}, io_nbytes=0)
    with pytest.raises(WasmgraphError, match=r"cannot write .*Permission denied"):
        link(Bundle(graph, b"", b""), tmp_path / "out.wasm")


def test_an_interrupt_late_in_the_work_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.wasm"
    out.write_bytes(b"the old one")

    def interrupted(data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module_under_test, "check_graph", interrupted)
    with pytest.raises(KeyboardInterrupt):
        link(bundles.add_bundle(), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out.wasm"]
    assert out.read_bytes() == b"the old one"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a disk that is full")
def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(WasmgraphError, match="cannot write /dev/full: No space left"):
        module_under_test._write(Path("/dev/full"), b"new")


def test_the_file_has_the_permissions_of_any_new_file(linked: Linked, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE(linked("add").stat().st_mode) == expected


def test_details_go_to_the_reporter(tmp_path: Path) -> None:
    said = []

    class Collector(Reporter):
        def log(self, message: str) -> None:
            said.append(message)

    link(bundles.add_bundle(), tmp_path / "out.wasm", Collector())
    assert any(find_rust().version in line for line in said)


# Stands in for cargo: says that it runs, starts a child as cargo does, and waits for ever.
SLOW_CARGO = "#!/bin/sh\nsleep 1000 &\necho $! > {pid}\nwait\n"


def interrupt_while_linking(tmp_path: Path, before: str) -> None:
    """Run a program that begins with `before` and links; press Ctrl-C once cargo runs.

    Fails unless cargo and its child are killed and no file is left behind.
    """
    cargo, pid = tmp_path / "cargo", tmp_path / "pid"
    cargo.write_text(SLOW_CARGO.format(pid=pid))
    cargo.chmod(0o755)
    folder = tmp_path / "out"
    (folder / "temporary").mkdir(parents=True)
    program = (
        f"{before}\n"
        "import sys; from pathlib import Path; from wasmgraph.link import link\n"
        "from wasmgraph.bundle import read_bundle\n"
        "link(read_bundle(Path(sys.argv[1])), Path(sys.argv[2]))"
    )
    write_bundle(bundles.add_bundle(), tmp_path / "bundle")
    arguments = [str(tmp_path / "bundle"), str(folder / "out.wasm")]
    environment = {
        **os.environ,
        "WASMGRAPH_CARGO": str(cargo),
        "WASMGRAPH_RUSTC": str(find_rust().rustc),
        "TMPDIR": str(folder / "temporary"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    child = int(pid.read_text())
    wait_until(lambda: not is_running(child))
    assert list(folder.rglob("*")) == [folder / "temporary"]


def test_an_interrupt_kills_cargo_and_its_children_and_leaves_no_file(tmp_path: Path) -> None:
    interrupt_while_linking(tmp_path, "")


# Starting a process takes long, so that Ctrl-C finds it forked and not yet handed over.
SLOW_START = """
import os, subprocess, time
class SlowPopen(subprocess.Popen):
    def __init__(self, command, **options):
        super().__init__(command, **options)
        if str(command[0]) == os.environ["WASMGRAPH_CARGO"]:
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                time.sleep(0.01)
subprocess.Popen = SlowPopen
"""


def test_an_interrupt_while_cargo_starts_kills_it_too(tmp_path: Path) -> None:
    interrupt_while_linking(tmp_path, SLOW_START)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def is_running(pid: int) -> bool:
    """Whether the process lives; one that is dead but not yet waited for does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] not in ("Z", "X")
