"""The size of the JavaScript package and its types, by the tools that `npm ci` brings there."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "toolchain" / "javascript"
MAX_BYTES = 17_500
MAX_GZIP_BYTES = 8_000


def tool(name: str) -> Path:
    """One of the development tools, or a skip."""
    path = PACKAGE / "node_modules" / ".bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed (npm ci in toolchain/javascript)")
    return path


def test_it_is_small(node: str, tmp_path: Path) -> None:
    out = tmp_path / "wasmgraph.js"
    flags = ("--bundle", "--minify", "--format=esm", "--target=es2022", "--log-level=warning")
    command = [tool("esbuild"), PACKAGE / "src" / "index.js", *flags, f"--outfile={out}"]
    subprocess.run(command, check=True, timeout=120)
    minified = out.read_bytes()
    assert len(minified) < MAX_BYTES
    assert len(gzip.compress(minified, 9)) < MAX_GZIP_BYTES
    # A worker adds next to nothing to what it shares with the rest.
    worker = PACKAGE / "src" / "worker.js"
    assert worker.stat().st_size < 1000


def test_its_types_are_right(node: str) -> None:
    command = [tool("tsc"), "--project", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_it_depends_on_nothing_and_its_lock_file_names_no_registry() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest
    assert set(manifest["devDependencies"]) == {"esbuild", "typescript"}
    assert "://" not in (PACKAGE / "package-lock.json").read_text(encoding="utf-8")
