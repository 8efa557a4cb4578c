"""Run long native calls so that Ctrl-C works at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def interruptible(work: Callable[[], T]) -> T:
    """What `work` returns or raises; it runs in a daemon thread while this one waits.

    Python handles signals in the main thread, between bytecodes. There, a call into Wasmtime or
    onnxruntime would hold Ctrl-C back until it returns, for an endless graph forever. A wait can be
    interrupted, and the process ends without waiting for a daemon thread.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="wasmgraph-command", daemon=True).start()
    done.wait()
    if errors:
        raise errors[0]
    return results[0]
