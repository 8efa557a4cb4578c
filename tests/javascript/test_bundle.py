"""The size of the JavaScript package and its types, by the tools that `npm ci` brings there."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "toolchain" / "javascript"
MAX_ENTRY_BYTES = 8_000
"""Of what a program loads at once to run a graph in one thread; the rest comes when needed."""

ENTRY = """export {
  InferenceError, InputError, LoadError, MemoryLimitExceeded, RunTimeout, WasmgraphError,
  load, tensor,
} from "INDEX";
"""
"""Uses all of the package but its helper for images, which bundlers then leave out."""


def tool(name: str) -> Path:
    """One of the development tools, or a skip."""
    path = PACKAGE / "node_modules" / ".bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not installed (npm ci in toolchain/javascript)")
    return path


@pytest.fixture(scope="module")
def bundled(node: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """esbuild's account of its output files by name; the entry is "entry.js"."""
    folder = tmp_path_factory.mktemp("bundle")
    account = folder / "account.json"
    worker = PACKAGE / "src" / "worker.js"
    flags = ("--bundle", "--minify", "--splitting", "--format=esm", "--log-level=warning")
    places = (f"--outdir={folder / 'out'}", f"--metafile={account}", "--entry-names=[name]")
    entry = folder / "entry.js"
    entry.write_text(ENTRY.replace("INDEX", str(PACKAGE / "src" / "index.js")), encoding="utf-8")
    command = [tool("esbuild"), entry, worker, *flags, *places]
    subprocess.run(command, check=True, timeout=120)
    outputs = json.loads(account.read_text(encoding="utf-8"))["outputs"]
    return {
        Path(name).name: {
            "file": folder / "out" / Path(name).name,
            "imports": [(Path(i["path"]).name, i["kind"]) for i in output["imports"]],
        }
        for name, output in outputs.items()
    }


def loaded_at_once(bundled: dict[str, Any], name: str) -> set[str]:
    """A file and what it imports statically."""
    imports = [to for to, kind in bundled[name]["imports"] if kind == "import-statement"]
    return {name}.union(*(loaded_at_once(bundled, each) for each in imports))


def test_it_is_small(bundled: dict[str, Any]) -> None:
    entry = loaded_at_once(bundled, "entry.js")
    nbytes, gzipped = sizes(bundled, entry)
    total = sizes(bundled, set(bundled))
    said = (
        f"the entry is {nbytes} bytes minified ({gzipped} gzipped), "
        f"with every chunk and the worker {total[0]} ({total[1]})"
    )
    print(said)
    assert nbytes < MAX_ENTRY_BYTES, said


def sizes(bundled: dict[str, Any], names: set[str]) -> tuple[int, int]:
    """Bytes of these files, and gzipped."""
    codes = [bundled[name]["file"].read_bytes() for name in names]
    return sum(map(len, codes)), sum(len(gzip.compress(code, 9)) for code in codes)


def test_the_bundle_runs_with_its_worker_and_its_errors(
    node: str, bundled: dict[str, Any], digits_wasm: Path
) -> None:
    script = f"""
    import {{ load }} from {json.dumps(bundled["entry.js"]["file"].as_uri())};
    const found = [];
    for (const options of [{{}}, {{ worker: true }}, {{ maxMemory: 1 << 26 }}]) {{
      const graph = await load({json.dumps(str(digits_wasm))}, options);
      const given = [new Float32Array(64), new Array(64).fill(0), [1]];
      for (const image of given) {{
        const result = graph.run({{ image }});
        found.push(await result.then(({{ probabilities }}) => [...probabilities.data], String));
      }}
      graph.close();
    }}
    console.log(JSON.stringify(found));"""
    command = [node, "--input-type=module", "-e", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    first, error = found[0], found[2]
    assert len(first) == 10
    assert error.startswith("InputError: input 'image': expected float32[1, 1, 8, 8]")
    assert found == [first, first, error] * 3


def test_its_types_are_right(node: str) -> None:
    command = [tool("tsc"), "--project", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_it_depends_on_nothing_and_its_lock_file_names_no_registry() -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    assert "dependencies" not in manifest
    assert set(manifest["devDependencies"]) == {"esbuild", "typescript"}
    assert "://" not in (PACKAGE / "package-lock.json").read_text(encoding="utf-8")
