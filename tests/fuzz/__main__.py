"""`make fuzz`: tries damaged models, bundles and graphs until the time is over.

Ends with 1 and names the cases if any ended in something that is no documented error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from wasmgraph.crash_handlers import import_tvm

import_tvm()  # before Wasmtime, which the next ones bring

from tests.fuzz.cases import KINDS, Case, make_case, make_originals  # noqa: E402
from tests.fuzz.originals import models_in, originals  # noqa: E402
from tests.fuzz.trial import Ending, Limits, try_case  # noqa: E402


def main() -> int:
    """The command."""
    options = _options()
    models = {**originals(), **(models_in(options.models) if options.models else {})}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        # It also imports everything once, not in every case.
        sound = make_originals(models, Path(folder))
    began = time.monotonic()
    numbers = iter([options.case] if options.case is not None else range(options.first, 10**12))
    tally: Counter[str] = Counter()
    findings: list[tuple[Case, Ending]] = []
    slowest = 0.0
    for number in numbers:
        tried = sum(tally.values())
        if tried == options.cases or (tried and time.monotonic() - began > options.seconds):
            break
        case = make_case(options.seed, number, sound, options.kind)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            case.write(options.keep)
        ending = try_case(case, Limits(seconds=options.limit))
        slowest = max(slowest, ending.seconds)
        tally[ending.verdict] += 1
        if ending.is_finding:
            findings.append((case, ending))
        if ending.is_finding or options.verbose or options.case is not None:
            print(_described(case, ending), flush=True)
    counts = ", ".join(f"{verdict} {count}" for verdict, count in tally.most_common())
    print(
        f"seed {options.seed}: {sum(tally.values())} cases in {time.monotonic() - began:.0f} s, "
        f"the slowest {slowest:.1f} s: {counts}"
    )
    for case, ending in findings:
        print(f"finding: case {case.number} ({case.kind}): {ending.verdict}", file=sys.stderr)
    if findings:
        again = f"make fuzz SEED={options.seed} CASE={findings[0][0].number}"
        models = f" MODELS={options.models}" if options.models else ""
        print(f"one again: {again}{models}", file=sys.stderr)
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0, help="no case begins after them")
    parser.add_argument("--cases", type=int, default=-1, help="how many at most")
    parser.add_argument("--first", type=int, default=0, help="the number to begin with")
    parser.add_argument("--case", type=int, help="only this one, and all about it")
    parser.add_argument("--kind", choices=KINDS, help="only damaged things of this kind")
    parser.add_argument("--models", type=Path, help="a folder of further models")
    parser.add_argument("--limit", type=float, default=Limits.seconds, help="seconds per case")
    parser.add_argument("--keep", type=Path, help="a folder that gets the files of the last case")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    return parser.parse_args()


def _described(case: Case, ending: Ending) -> str:
    mark = "FINDING " if ending.is_finding else ""
    lines = ending.text.splitlines() or [""]
    text = "\n    ".join(lines)
    head = f"{mark}case {case.number} ({case.kind}, {case.damage}): {ending.verdict}"
    return f"{head} after {ending.seconds:.1f} s\n    {text}"


if __name__ == "__main__":
    sys.exit(main())
