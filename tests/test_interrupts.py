"""An interruption leaves the block as itself, whatever the code inside makes of it."""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator

import pytest

from wasmgraph.interrupts import interrupts_held, interrupts_kept


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own, and back to what they were at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def garble() -> None:
    """Ctrl-C inside code that turns every exception into another, as TVM does."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("") from None


def swallow() -> None:
    """Ctrl-C inside code that goes on after any exception."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("work", [garble, swallow, press])
def test_ctrl_c_comes_out_as_such(work: object) -> None:
    assert callable(work)
    with pytest.raises(KeyboardInterrupt), interrupts_kept():
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_another_handler_raises_comes_out() -> None:
    class Stop(Exception):
        pass

    def stop(number: int, frame: object) -> None:
        raise Stop

    signal.signal(signal.SIGTERM, stop)
    with pytest.raises(Stop), interrupts_kept():  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGTERM)
        except Stop:
            raise RuntimeError from None
    assert signal.getsignal(signal.SIGTERM) is stop


def test_a_handler_that_raises_nothing_interrupts_nothing() -> None:
    heard = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    with interrupts_kept():
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGINT]


def test_ignored_signals_stay_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_kept():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_errors_of_the_block_s_own_pass() -> None:
    with pytest.raises(ValueError, match="own"), interrupts_kept():
        raise ValueError("own")


def test_other_threads_are_let_be() -> None:
    seen = []

    def work() -> None:
        with interrupts_kept():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.filterwarnings("error")
def test_a_signal_behind_the_block_s_end_comes_out_once() -> None:
    """As when it arrives in contextlib's own `__exit__`: the generator is never resumed."""
    block = interrupts_kept()
    block.__enter__()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    del block  # closes the generator, whose errors pytest turns into warnings
    gc.collect()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_held_interrupt_comes_at_the_end_of_the_block() -> None:
    finished = False
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012
        press()
        finished = True
    assert finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_inside_the_held_block_is_not_lost() -> None:
    with pytest.raises(ValueError, match="its own"), interrupts_held():
        raise ValueError("its own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_is_held_in_another_thread() -> None:
    entered = []

    def work() -> None:
        with interrupts_held():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [signal.default_int_handler]
