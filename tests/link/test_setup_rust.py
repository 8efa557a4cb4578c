"""toolchain/setup-rust.sh, with stand-ins for rustc, rustup and apt-get on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "toolchain" / "setup-rust.sh"


class Machine:
    """A machine whose rustc lacks the WASI target, unless something makes the target's folder."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.write_text("")
        self.library = folder / "lib" / "rustlib" / "wasm32-wasip1" / "lib"
        (folder / "bin").mkdir()
        for tool in ("sh", "sed", "env", "mkdir"):
            found = shutil.which(tool)
            assert found
            (folder / "bin" / tool).symlink_to(found)
        answers = f'if [ "$1" = --version ]; then echo "rustc {version}"; else echo {folder}; fi'
        self.put("rustc", answers)
        self.put("cargo", "")
        self.put("rust-lld", "")
        self.put("id", "echo 0")

    def put(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def put_installer(self, name: str, works: bool) -> None:
        last = f"mkdir -p {self.library}" if works else "exit 1"
        self.put(name, f'echo {name} "$@" >> {self.log}\n{last}')

    def run(self) -> subprocess.CompletedProcess[str]:
        # Naming the programs keeps the script from looking at this machine's /usr/bin.
        environment = {
            "PATH": str(self.folder / "bin"),
            "WASMGRAPH_RUSTC": str(self.folder / "bin" / "rustc"),
            "WASMGRAPH_CARGO": str(self.folder / "bin" / "cargo"),
        }
        return subprocess.run(
            [str(SCRIPT)], env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "1.95.0")


def test_it_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)


def test_nothing_is_done_where_all_is_there(machine: Machine) -> None:
    machine.library.mkdir(parents=True)
    machine.put_installer("rustup", works=True)
    machine.put_installer("apt-get", works=True)
    done = machine.run()
    assert done.returncode == 0
    assert "rustc 1.95.0 with wasm32-wasip1 is ready" in done.stderr
    assert machine.log.read_text() == ""


def test_rustup_adds_the_target(machine: Machine) -> None:
    machine.put_installer("rustup", works=True)
    machine.put_installer("apt-get", works=True)
    assert machine.run().returncode == 0
    assert machine.log.read_text() == "rustup target add wasm32-wasip1\n"


def test_an_old_rust_is_asked_for_the_old_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "1.70.0")
    machine.put_installer("rustup", works=True)
    assert machine.run().returncode == 0
    assert machine.log.read_text() == "rustup target add wasm32-wasi\n"


def test_apt_installs_where_rustup_cannot(machine: Machine) -> None:
    machine.put_installer("rustup", works=False)
    machine.put_installer("apt-get", works=True)
    assert machine.run().returncode == 0
    calls = machine.log.read_text().splitlines()
    assert calls[0] == "rustup target add wasm32-wasip1"
    assert calls[1].startswith("apt-get install -y")
    assert calls[1].endswith("rustc cargo libstd-rust-dev-wasm32 lld")
    assert len(calls) == 2


def test_apts_lists_are_brought_up_to_date_where_installing_fails(machine: Machine) -> None:
    text = f'echo apt-get "$1" >> {machine.log}; [ "$1" = update ] && mkdir -p {machine.library}; '
    machine.put("apt-get", text + f"test -d {machine.library}")
    assert machine.run().returncode == 0
    assert machine.log.read_text().split("\n")[:3] == [
        "apt-get install",
        "apt-get update",
        "apt-get install",
    ]


def test_without_root_apt_is_left_alone(machine: Machine) -> None:
    machine.put("id", "echo 1000")
    machine.put_installer("apt-get", works=True)
    assert machine.run().returncode == 5
    assert machine.log.read_text() == ""


@pytest.mark.parametrize("rustup", [True, False])
def test_where_nothing_helps_the_commands_to_run_are_said(machine: Machine, rustup: bool) -> None:
    if rustup:
        machine.put_installer("rustup", works=False)
    done = machine.run()
    assert done.returncode == 5
    assert "rustup target add wasm32-wasip1" in done.stderr
    assert "sudo apt-get install rustc cargo libstd-rust-dev-wasm32 lld" in done.stderr
    assert ("https://rustup.rs" in done.stderr) is not rustup
