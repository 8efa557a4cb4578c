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

On a Zen 4 at 3.66 GHz, 4x2 and 2x3 reach 58.4 GFLOP/s, which is 16 FLOP per cycle: two
multiplications and two additions of four lanes, all that it can do, and what fused multiply-adds
reach as well. 3x3 reached 55, 2x4 54, chains of x = x c + d at most 53. Which is best is a matter
of the CPU, so several are tried and the best counts.
"""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise

import wasmtime

LANES = 4
TILES = ((4, 2), (2, 3))
"""How many values are multiplied with how many others."""


def measure_limit(seconds: float = 0.1, *, relaxed: bool = False) -> float:
    """FLOP/s of one thread in 128-bit multiply-adds, under the Wasmtime that runs graphs.

    Args:
        seconds: For how long to measure, shared by the loops that are tried.
        relaxed: With the fused multiply-add of relaxed SIMD rather than a multiplication and an
            addition.

    Returns:
        The best loop's figure, counting a multiply-add of one lane as two operations.
    """
    share = seconds / len(TILES)
    return max(_rate(rows, columns, share, relaxed) for rows, columns in TILES)


def _rate(rows: int, columns: int, seconds: float, relaxed: bool) -> float:
    store, loop = _prepared(rows, columns, relaxed)
    flops = 2 * LANES * rows * columns
    iterations = 100_000
    best = 0.0
    end = time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        loop(store, iterations)
        ended = time.perf_counter()
        best = max(best, flops * iterations / (ended - began))
        if ended >= end:
            return best


@cache
def _prepared(rows: int, columns: int, relaxed: bool) -> tuple[wasmtime.Store, wasmtime.Func]:
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    module = wasmtime.Module(engine, loop_text(rows, columns, relaxed=relaxed))
    loop = wasmtime.Instance(store, module, []).exports(store)["loop"]
    assert isinstance(loop, wasmtime.Func)
    return store, loop


def loop_text(rows: int, columns: int, *, relaxed: bool = False) -> str:
    """The module as text: `loop(iterations)` makes 8 rows columns FLOP per iteration.

    The result is the accumulators' sum, so that none of the work can be left out.
    """
    sums = [f"$s{i}_{j}" for i in range(rows) for j in range(columns)]
    left = [f"$a{i}" for i in range(rows)]
    right = [f"$b{j}" for j in range(columns)]
    get = "(local.get {})".format
    steps = []
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            total = f"$s{i}_{j}"
            if relaxed:
                step = f"(f32x4.relaxed_madd {get(a)} {get(b)} {get(total)})"
            else:
                step = f"(f32x4.add {get(total)} (f32x4.mul {get(a)} {get(b)}))"
            steps.append(f"(local.set {total} {step})")
    exchange = [f"(local.set $kept {get(left[0])})"]
    exchange += [f"(local.set {to} {get(of)})" for to, of in pairwise(left)]
    exchange += [f"(local.set {left[-1]} {get('$kept')})"]
    # Values whose products neither vanish nor grow beyond what a float holds.
    start = [
        f"(local.set {name} (f32x4.splat (f32.const {0.5 + k / 64})))"
        for k, name in enumerate((*left, *right))
    ]
    result = get(sums[0])
    for name in sums[1:]:
        result = f"(f32x4.add {result} {get(name)})"
    return f"""(module (func (export "loop") (param $n i32) (result f32)
  {" ".join(f"(local {name} v128)" for name in (*sums, *left, *right, "$kept"))}
  {" ".join(start)}
  (loop $again
    {" ".join(steps)}
    {" ".join(exchange)}
    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
  (f32x4.extract_lane 0 {result})))"""
