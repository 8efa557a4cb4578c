"""The most floating-point operations per second that this machine does under Wasmtime.

A loop that touches no memory: eight 128-bit accumulators, each iteration adds to every one of them
the product of two registers. What kernels reach is a share of this. Three things would make the
figure a wrong one, and shape the loop:

* **A product computed once and used twice.** Cranelift finds equal products in a loop's body, and
  lifts those that do not change out of it. So an iteration multiplies every pair of m values with n
  others once, and the m values change places from one iteration to the next, through the loop's
  parameters, which no optimisation sees through. It costs register moves only, which a CPU does
  while renaming.
* **Registers.** m n accumulators, m + n operands, a product and the place for the exchange must fit
  into sixteen; one more and accumulators are spilled, at a third of the speed. For the same
  reason the body is not unrolled: Cranelift would move all steps of one accumulator together.
* **Latency.** An addition takes 2 to 4 cycles and two begin per cycle: six to eight accumulators.

On a Zen 4 at 3.66 GHz, 4x2 and 2x3 reach 58.5 GFLOP/s, which is 16 FLOP per cycle: two
multiplications and two additions of four lanes, all that it can do. 3x3 reached 55, 2x4 54, chains
of x = x c + d at most 53. Which is best is a matter of the CPU, so several are tried and the best
counts.

A fused multiply-add (relaxed SIMD) overwrites one of its operands, and copies would slow the same
loop down; but it cannot be taken apart either, so twelve chains of x = x c + d do: 57.5 there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise

import wasmtime

LANES = 4
TILES = ((4, 2), (2, 3))
"""How many values are multiplied with how many others."""

CHAINS = 12
"""Of fused multiply-adds, whose latency is 4 cycles where two begin per cycle."""

ITERATIONS = 3_000_000
"""Of one call: some 3 ms, beside which the 20 us that a call from Python takes are nothing, and
which on a busy machine often pass without an interruption."""

JOB_ITERATIONS = 10_000_000
"""Some 10 ms on one thread: as long as the shortest models whose gain from threads is judged."""


def measure_limit(seconds: float = 0.1, *, relaxed: bool = False) -> float:
    """FLOP/s of one thread in 128-bit multiply-adds, under the Wasmtime that runs graphs.

    Args:
        seconds: For how long to measure, shared by the loops that are tried.
        relaxed: Whether the fused multiply-add of relaxed SIMD may be used too.

    Returns:
        The best loop's figure, counting a multiply-add of one lane as two operations.
    """
    loops = [(loop_text(*tile), tile[0] * tile[1]) for tile in TILES]
    if relaxed:
        loops.append((fused_text(CHAINS), CHAINS))
    share = seconds / len(loops)
    return max(_rate(text, accumulators, share) for text, accumulators in loops)


def measure_thread_gain(seconds: float = 0.2, threads: int = 2) -> float:
    """How many times as quickly `threads` threads end the loop as one does, at the median.

    They share nothing, wait for each other only at the end and touch no memory, so no graph gains
    more from its threads than this, on this machine, at this moment. Where nothing else has a part
    of the cores it is almost `threads`.

    Args:
        seconds: For how long to measure; one thread and several take turns.
        threads: How many, at least 2.
    """
    text = loop_text(*TILES[0])
    loops = [_instance(text) for _ in range(threads)]
    part = JOB_ITERATIONS // threads
    alone: list[float] = []
    together: list[float] = []
    with ThreadPoolExecutor(threads - 1) as others:
        end = time.perf_counter() + seconds
        while not together or time.perf_counter() < end:
            began = time.perf_counter()
            _call(loops[0], part * threads)
            alone.append(time.perf_counter() - began)
            began = time.perf_counter()
            under_way = [others.submit(_call, loop, part) for loop in loops[1:]]
            _call(loops[0], part)
            wait(under_way)
            together.append(time.perf_counter() - began)
    return statistics.median(alone) / statistics.median(together)


def _call(loop: tuple[wasmtime.Store, wasmtime.Func], iterations: int) -> None:
    store, function = loop
    function(store, iterations)


def _rate(text: str, accumulators: int, seconds: float) -> float:
    store, loop = _prepared(text)
    flops = 2 * LANES * accumulators
    best = 0.0
    end = time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        loop(store, ITERATIONS)
        ended = time.perf_counter()
        best = max(best, flops * ITERATIONS / (ended - began))
        if ended >= end:
            return best


@cache
def _prepared(text: str) -> tuple[wasmtime.Store, wasmtime.Func]:
    return _instance(text)


def _instance(text: str) -> tuple[wasmtime.Store, wasmtime.Func]:
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    loop = wasmtime.Instance(store, wasmtime.Module(engine, text), []).exports(store)["loop"]
    assert isinstance(loop, wasmtime.Func)
    return store, loop


def loop_text(rows: int, columns: int) -> str:
    """The module as text: `loop(iterations)` makes 8 rows columns FLOP per iteration.

    The result is the accumulators' sum, so that none of the work can be left out.
    """
    sums = [f"$s{i}_{j}" for i in range(rows) for j in range(columns)]
    left = [f"$a{i}" for i in range(rows)]
    right = [f"$b{j}" for j in range(columns)]
    steps = [
        f"(local.set $s{i}_{j} (f32x4.add {_get(f'$s{i}_{j}')} (f32x4.mul {_get(a)} {_get(b)})))"
        for i, a in enumerate(left)
        for j, b in enumerate(right)
    ]
    exchange = [f"(local.set $kept {_get(left[0])})"]
    exchange += [f"(local.set {to} {_get(of)})" for to, of in pairwise(left)]
    exchange += [f"(local.set {left[-1]} {_get('$kept')})"]
    # Values whose products neither vanish nor grow beyond what a float holds.
    start = {name: 0.5 + k / 64 for k, name in enumerate((*left, *right))}
    return _module([*sums, "$kept"], start, [*steps, *exchange], sums)


def fused_text(chains: int) -> str:
    """The same with fused multiply-adds: 8 chains FLOP per iteration."""
    sums = [f"$x{k}" for k in range(chains)]
    steps = [
        f"(local.set {x} (f32x4.relaxed_madd {_get(x)} {_get('$c')} {_get('$d')}))" for x in sums
    ]
    # All of them tend to 1.
    start = {"$c": 0.75, "$d": 0.25} | {name: k / 64 for k, name in enumerate(sums)}
    return _module([], start, steps, sums)


def _get(name: str) -> str:
    return f"(local.get {name})"


def _module(
    zeros: Sequence[str], start: Mapping[str, float], body: Sequence[str], sums: Sequence[str]
) -> str:
    result = _get(sums[0])
    for name in sums[1:]:
        result = f"(f32x4.add {result} {_get(name)})"
    set_up = [f"(local.set {name} (f32x4.splat (f32.const {v})))" for name, v in start.items()]
    return f"""(module (func (export "loop") (param $n i32) (result f32)
  {" ".join(f"(local {name} v128)" for name in (*zeros, *start))}
  {" ".join(set_up)}
  (loop $again
    {" ".join(body)}
    (br_if $again (local.tee $n (i32.sub {_get("$n")} (i32.const 1)))))
  (f32x4.extract_lane 0 {result})))"""
