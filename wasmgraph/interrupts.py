"""Ctrl-C that stays Ctrl-C while TVM works, and that does not come between a process and its owner.

TVM's C++ code looks for signals, runs Python's handler and carries what it raises back through its
own frames; where Python and C++ calls are nested, a RuntimeError without text comes out instead.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """What a handler of SIGINT or SIGTERM raises inside the block leaves the block as itself.

    Handlers that raise nothing are let be. Python runs handlers in the main thread only, so in
    other threads there is nothing to keep.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised: list[BaseException] = []
    with ExitStack() as stack:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, _remembering(handler, raised))
                stack.callback(signal.signal, number, handler)
        try:
            yield
        except GeneratorExit:
            # The signal came between the block's end and this line; it is on its way already.
            raise
        except BaseException as error:
            if not raised or error is raised[0]:
                raise
            raise raised[0] from error
        if raised:
            raise raised[0]


@contextmanager
def interrupts_held() -> Iterator[None]:
    """A SIGINT or SIGTERM that comes inside the block is handled at its end; keep the block short.

    For steps of which nobody could say afterwards how far they came, such as starting a process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    with ExitStack() as stack:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, lambda *arguments: held.append(arguments))
                stack.callback(signal.signal, number, handler)
        yield
    for came, frame in held:
        handler = handlers[signal.Signals(came)]
        assert callable(handler)
        handler(came, frame)


def _remembering(
    handler: Callable[[int, FrameType | None], Any], raised: list[BaseException]
) -> Callable[[int, FrameType | None], None]:
    def remember(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            raised.append(error)
            raise

    return remember
