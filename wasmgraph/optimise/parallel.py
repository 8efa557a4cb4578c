"""Cut large kernel calls into shares that may run at the same time.

How many shares a call gets is decided here, once; which thread runs which is decided at run time.
Small calls stay whole: to hand out work and to wait for it takes a few microseconds.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from wasmgraph.kernels.chain import IDENTITY
from wasmgraph.kernels.copying import StridedCopy
from wasmgraph.kernels.depthwise import Depthwise
from wasmgraph.kernels.pooling import Pool
from wasmgraph.kernels.sharing import Share, Shareable
from wasmgraph.kernels.softmax import Softmax
from wasmgraph.kernels.winograd import Winograd
from wasmgraph.optimise.program import Call, Place, Program, Storage

SHARES = ((200e-6, 16), (75e-6, 8), (30e-6, 4), (15e-6, 2))
"""(seconds on one thread from which on, shares), the most first. Below the last a call stays
whole.

Many more than threads, since the threads are seldom equally fast: whoever is held up takes fewer.
Against 2, 4 and 8 shares from 20, 80 and 300 us on, two threads took 3 to 8 % less time over
squeezenet, mobilenet_v2, nanodet, ultraface and resnet50 (medians of alternating runs, a virtual
machine with busy neighbours, two Zen 4 cores, Wasmtime 50, 2026-11-20). Up to 32
took as long and needed more scratch memory."""

PRODUCT_FLOPS = 40e9
"""Multiplications and additions per second of matrix products and convolutions."""

WINOGRAD_FLOPS = 80e9
"""The same of Winograd's convolutions, which do fewer than are counted."""

WINDOW_FLOPS = 30e9
"""The same of depthwise convolutions; of pooling, taps per second."""

BYTES = 20e9
"""Bytes per second, read and written, of kernels that mostly move them."""

COSTLY_SECONDS = 1e-9
"""Time for one element of an operator such as a sigmoid (`Chain.is_costly`) or of a softmax."""


WORTH_SECONDS = 0.7e-3
"""A run that takes less on one thread stays there: another thread needs 50 to 100 us to begin. With
two threads micro_kws_m (0.37 ms) took 0.42 ms, fsanet_headpose (1.17 ms) 1.11 ms (two Zen 4 cores,
Wasmtime 50 from Python, 2026-11-20)."""


def share_out(program: Program) -> Program:
    """The program for several threads: a stage of shares in the place of each large call."""
    if sum(map(seconds, program.calls)) < WORTH_SECONDS:
        return replace(program, threads=True)
    storages = list(program.storages)
    stages: list[tuple[Call, ...]] = []
    for stage in program.stages:
        calls: list[Call] = []
        for call in stage:
            calls += _share_call(call, storages)
        stages.append(tuple(calls))
    return replace(program, storages=tuple(storages), stages=tuple(stages), threads=True)


def seconds(call: Call) -> float:
    """About how long a call takes on one thread; a model, not a measurement."""
    kernel = call.kernel
    flops = getattr(kernel, "flops", 0)
    if flops:
        rates = {Depthwise: WINDOW_FLOPS, Winograd: WINOGRAD_FLOPS}
        time = flops / rates.get(type(kernel), PRODUCT_FLOPS)
    elif isinstance(kernel, StridedCopy):
        # A place reaches over all that lies between its elements, too.
        time = 2 * kernel.item_nbytes * prod(kernel.shape) / BYTES
    else:
        time = sum(place.nbytes for place in (*call.reads, *call.writes)) / BYTES
    if isinstance(kernel, Pool):
        taps = kernel.batch * kernel.out_h * kernel.out_w * kernel.channels
        time = max(time, taps * kernel.kernel_h * kernel.kernel_w / WINDOW_FLOPS)
    if getattr(kernel, "chain", IDENTITY).is_costly or isinstance(kernel, Softmax):
        time += call.writes[0].nbytes / 4 * COSTLY_SECONDS
    return time


def _share_call(call: Call, storages: list[Storage]) -> tuple[Call, ...]:
    """The call's shares, or itself; storages of scratch memory grow by what the shares need."""
    count = next((shares for least, shares in SHARES if seconds(call) >= least), 1)
    if count == 1 or not isinstance(call.kernel, Shareable):
        return (call,)
    shares = call.kernel.shares(count)
    if len(shares) == 1:
        return (call,)
    return tuple(_call(call, share, storages) for share in shares)


def _call(call: Call, share: Share, storages: list[Storage]) -> Call:
    places = [*call.reads, *call.writes]
    moved = [_within(*pair) for pair in zip(places, share.offsets, strict=True)]
    scratch = getattr(share.kernel, "scratch_nbytes", 0)
    if scratch:
        # Every share has scratch memory of its own behind that of the one before.
        moved[-1] = replace(moved[-1], offset=places[-1].offset + share.offsets[-1], nbytes=scratch)
        storage = storages[moved[-1].storage]
        end = moved[-1].offset + scratch
        storages[moved[-1].storage] = replace(storage, nbytes=max(storage.nbytes, end))
    reads = len(call.reads)
    return replace(
        call,
        kernel=share.kernel,
        reads=tuple(moved[:reads]),
        writes=tuple(moved[reads:]),
        replaceable=call.replaceable if getattr(share.kernel, "replaceable", 0) else (),
    )


def _within(place: Place, offset: int) -> Place:
    """From where the share's part begins to the end of the whole."""
    return Place(place.storage, place.offset + offset, place.nbytes - offset)
