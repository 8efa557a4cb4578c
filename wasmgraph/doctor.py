"""Examines what this machine has and lacks for wasmgraph. Looks only, and quickly: TVM and Wasmtime
are asked for their installed versions, not imported.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from wasmgraph.cache_folder import cache_folder
from wasmgraph.errors import ToolchainError
from wasmgraph.link import crate_folder, find_rust
from wasmgraph.link.rust import install_command

Status = Literal["ok", "missing", "optional-missing"]


@dataclass(frozen=True)
class Finding:
    """One thing that wasmgraph needs or can use.

    Attributes:
        name: What it is, e.g. "Rust with a WASI target".
        status: "missing" also covers a version that does not do.
        detail: Its version and place, or what is wrong.
        fix: The command that mends it, or None where nothing is to mend.
        required: Whether compiling or running fails without it.
    """

    name: str
    status: Status
    detail: str
    fix: str | None
    required: bool


@dataclass(frozen=True)
class _Package:
    """A Python package: its distribution, what it is for, and the extra that brings it, if any."""

    name: str
    distribution: str
    purpose: str
    extra: str | None = None


_PACKAGES = (
    _Package("TVM", "apache-tvm", "compile"),
    _Package("TVM FFI", "apache-tvm-ffi", "compile"),
    _Package("ONNX", "onnx", "compile"),
    _Package("Wasmtime", "wasmtime", "run"),
    _Package("onnxruntime", "onnxruntime", "verify", extra="verify"),
    _Package("Pillow", "pillow", "read pictures", extra="images"),
)


def examine() -> list[Finding]:
    """Examine Rust, the linker, the Python packages and the cache folder, in this order."""
    packages = [_examine_package(package) for package in _PACKAGES]
    return [*_examine_rust(), _examine_crate(), *packages, _examine_cache()]


def _examine_rust() -> list[Finding]:
    names = ("Rust with a WASI target", "cargo", "linker")
    try:
        rust = find_rust()
    except ToolchainError as error:
        # The search is for all three together: which of them lacks is in the message.
        fix = install_command()
        first = Finding(names[0], "missing", error.message, fix, required=True)
        return [first, *(Finding(n, "missing", "see above", fix, True) for n in names[1:])]
    details = (
        f"{rust.version} with {rust.target} ({rust.rustc})",
        str(rust.cargo),
        str(rust.linker),
    )
    return [
        Finding(name, "ok", detail, None, required=True)
        for name, detail in zip(names, details, strict=True)
    ]


def _examine_crate() -> Finding:
    name = "executor crate"
    try:
        return Finding(name, "ok", str(crate_folder()), None, required=True)
    except ToolchainError as error:
        fix = _pip("wasmgraph", "--force-reinstall")
        return Finding(name, "missing", error.message, fix, required=True)


def _examine_package(package: _Package) -> Finding:
    required = package.extra is None
    absent: Status = "missing" if required else "optional-missing"
    wanted = _wanted_versions(package.distribution)
    requirement = package.distribution + wanted
    try:
        version = metadata.version(package.distribution)
    except metadata.PackageNotFoundError:
        detail = f"not installed; needed to {package.purpose}"
        return Finding(package.name, absent, detail, _pip(requirement), required)
    if not _fulfils(version, wanted):
        detail = f"{version} is installed, {wanted} is needed to {package.purpose}"
        return Finding(package.name, absent, detail, _pip(requirement), required)
    return Finding(package.name, "ok", version, None, required)


def _pip(*arguments: str) -> str:
    quoted = (f"'{a}'" if re.search(r"[<>!~\[\]]", a) else a for a in arguments)
    return f"{sys.executable} -m pip install {' '.join(quoted)}"


def _wanted_versions(distribution: str) -> str:
    """The version specifier of wasmgraph's own requirement, e.g. ">=48,<51"; "" where none is."""
    try:
        requirements = metadata.requires("wasmgraph") or []
    except metadata.PackageNotFoundError:
        # A checkout that is not installed has no list of requirements to compare with.
        return _PINS.get(distribution, "")
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)", requirement)
        if match and match[1].lower() == distribution:
            return match[2].replace(" ", "")
    return ""


# As in pyproject.toml; other versions of these two do not work together.
_PINS = {"apache-tvm": "==0.27.0.post1", "apache-tvm-ffi": "==0.1.14.post1"}


def _fulfils(version: str, wanted: str) -> bool:
    """Whether a version satisfies a list of the specifiers that pyproject.toml uses."""
    for specifier in filter(None, wanted.split(",")):
        match = re.fullmatch(r"(==|>=|<=|<|>)(.+)", specifier)
        assert match, f"pyproject.toml has the specifier {specifier!r}, which doctor cannot read"
        operator, bound = match.groups()
        ours, theirs = _release(version), _release(bound)
        holds = {
            "==": version == bound,
            ">=": ours >= theirs,
            "<=": ours <= theirs,
            "<": ours < theirs,
            ">": ours > theirs,
        }
        if not holds[operator]:
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers without trailing zeros, which mean nothing: (1, 18) of "1.18.0rc1"."""
    match = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _examine_cache() -> Finding:
    folder = cache_folder()
    fix = "export XDG_CACHE_HOME=/a/folder/you/can/write"
    if folder is None:
        detail = "there is no home folder, so every load compiles anew"
        return Finding("cache folder", "optional-missing", detail, fix, required=False)
    # The first that exists is the one in which the others would be made.
    existing = next(f for f in (folder, *folder.parents) if f.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Finding("cache folder", "ok", str(folder), None, required=False)
    detail = f"{folder} cannot be written, so every load compiles anew"
    return Finding("cache folder", "optional-missing", detail, fix, required=False)
