"""The errors a caller can act on: one base class, one subclass per kind.

Each message names the thing (file, node, input, limit), says what was expected and what was found;
`hint` is the way out, where there is one. The command line prints both and leaves with `exit_code`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class WasmgraphError(Exception):
    """Base class of every error wasmgraph raises on purpose.

    Attributes:
        message: What is wrong, in one sentence or a short list.
        hint: What the caller can do about it, or None.
        exit_code: The process exit code the command line uses for this kind.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def kind(self) -> str:
        """The kind's name as it appears in `--json` output, e.g. "ModelError"."""
        return type(self).__name__


class ModelError(WasmgraphError):
    """The file is not an ONNX model, is invalid, or lacks its external data."""

    exit_code = 3


@dataclass(frozen=True)
class Obstacle:
    """One reason why a model cannot be compiled.

    Attributes:
        node: The ONNX node's name (or the input's, for an open axis); never empty.
        op: The operator, with its domain where that is not ai.onnx, or "" for an input.
        reason: What is not supported.
    """

    node: str
    op: str
    reason: str

    def __str__(self) -> str:
        return (
            f"{self.node} ({self.op}): {self.reason}" if self.op else f"{self.node}: {self.reason}"
        )


class UnsupportedModelError(WasmgraphError):
    """A valid model that cannot be compiled: lists every obstacle at once."""

    exit_code = 4

    def __init__(
        self, message: str, hint: str | None = None, obstacles: Sequence[Obstacle] = ()
    ) -> None:
        lines = [message, *(f"  - {obstacle}" for obstacle in obstacles)]
        super().__init__("\n".join(lines), hint)
        self.obstacles = tuple(obstacles)


class ToolchainError(WasmgraphError):
    """cargo, the Rust target, the linker or a Python package is missing or fails."""

    exit_code = 5


class LoadError(WasmgraphError):
    """The file is not a graph: bad magic, foreign imports, unknown ABI."""

    exit_code = 6


class InputError(WasmgraphError):
    """An input is missing, extra or misnamed, or has the wrong dtype or shape."""

    exit_code = 7


class MemoryLimitExceeded(WasmgraphError):  # noqa: N818 - the design's name
    """The graph needs more memory than the caller allows."""

    exit_code = 8


class RunTimeout(WasmgraphError):  # noqa: N818 - the design's name
    """The run took longer than the caller allows."""

    exit_code = 9


class InferenceError(WasmgraphError):
    """The graph trapped or reported an error."""

    exit_code = 10


class VerificationError(WasmgraphError):
    """The outputs disagree with onnxruntime's."""

    exit_code = 11
