"""What `npm ci` in toolchain/javascript brings the tools for: the size of the package, and its types."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "toolchain" / "javascript"
MAX_BYTES = 8000


def tool(name: str) -> Path:
    """One of the development tools, or a skip."""
    path = PACKAGE / "node_modules" / ".bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed (npm ci in toolchain/javascript)")
    return path


def test_it_is_small(node: str, tmp_path: Path) -> None:
    sources = [PACKAGE / "src" / name for name in ("index.js", "worker.js")]
    flags = ("--bundle", "--minify", "--splitting", "--format=esm", "--target=es2022")
    subprocess.run(
        [tool("esbuild"), *sources, *flags, f"--outdir={tmp_path}", "--log-level=warning"],
        check=True,
        timeout=120,
    )
    # The worker included: with splitting it shares its code with the rest.
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sum(sizes.values()) < MAX_BYTES, sizes


def test_its_types_are_right(node: str) -> None:
    flags = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext")
    more = ("--lib", "es2022,dom", "--types", "")
    done = subprocess.run(
        [tool("tsc"), *flags, *more, PACKAGE / "index.d.ts", PACKAGE / "usage.ts"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_it_depends_on_nothing_and_its_lock_file_names_no_registry() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest
    assert set(manifest["devDependencies"]) == {"esbuild", "typescript"}
    assert "://" not in (PACKAGE / "package-lock.json").read_text(encoding="utf-8")
