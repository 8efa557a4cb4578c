"""Tries to compile what cannot be compiled, and checks how it is refused."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

import wasmgraph
from wasmgraph.cli import main
from wasmgraph.errors import WasmgraphError

REFUSAL_SECONDS = 20
"""A generous bound on a refusal: allocating or computing what is refused would take far longer."""


@contextmanager
def address_space(nbytes: int) -> Iterator[None]:
    """More than `nbytes` on top of what this process has now cannot be allocated inside."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Refusal:
    """Tries to compile, both ways, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        model: onnx.ModelProto | bytes | Path,
        kind: type[WasmgraphError],
        *texts: str,
        shapes: dict[str, tuple[int, ...]] | None = None,
    ) -> WasmgraphError:
        """The error, which must be of `kind` and say each of `texts`."""
        path = self._path(model)
        before = self.files()
        began = time.monotonic()
        with pytest.raises(WasmgraphError) as caught:
            wasmgraph.compile(path, self.folder / "out.wasm", shapes, verify=False)
        error = caught.value
        assert type(error) is kind, error
        for text in texts:
            assert text in f"{error.message}\n{error.hint}"
        assert self.files() == before
        flags = [f"--shape={n}={','.join(map(str, s))}" for n, s in (shapes or {}).items()]
        if not any(extent < 0 for shape in (shapes or {}).values() for extent in shape):
            self._check_command(path, flags, error)
        assert self.files() == before
        assert time.monotonic() - began < REFUSAL_SECONDS
        return error

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}

    def _path(self, model: onnx.ModelProto | bytes | Path) -> Path:
        if isinstance(model, Path):
            return model
        path = self.folder / "bad.onnx"
        data = model if isinstance(model, bytes) else model.SerializeToString()
        path.write_bytes(data)
        return path

    def _check_command(self, path: Path, flags: list[str], error: WasmgraphError) -> None:
        arguments = ["compile", str(path), "-o", str(self.folder / "out.wasm"), "--no-verify"]
        result = CliRunner().invoke(main, [*arguments, *flags])
        assert result.exit_code == error.exit_code, result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        assert result.stderr.count("error: ") == 1
        assert f"error: {error.message}\n" in result.stderr
        assert ("hint: " in result.stderr) == bool(error.hint)
