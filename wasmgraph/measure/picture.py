"""A profile as a picture: a bar per kernel, as long as its time, and how near the limit it runs."""

from __future__ import annotations

from pathlib import Path

from wasmgraph.atomic import replaced_when_done
from wasmgraph.errors import ToolchainError, WasmgraphError
from wasmgraph.measure.profile import Profile

MAX_BARS = 40
_LABEL = 60


def draw_profile(profile: Profile, path: Path) -> None:
    """Write the slowest steps as an SVG or PNG file.

    Raises:
        ToolchainError: matplotlib is not installed.
        WasmgraphError: the suffix is neither, or the file cannot be written.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise WasmgraphError(f"{path} should end in .svg or .png", hint="name another file")
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ToolchainError(
            "drawing needs matplotlib, which is not installed",
            hint="pip install 'wasmgraph[plots]'",
        ) from error
    slowest = sorted(profile.steps, key=lambda step: -step.seconds)[:MAX_BARS][::-1]
    labels = [
        f"{step.step}: {step.description}"[:_LABEL]
        + (f"  ({step.nodes[0]})"[:40] if step.nodes else "")
        for step in slowest
    ]
    # The same profile gives the same file: no date, no random identifiers.
    with mpl.rc_context({"svg.hashsalt": "wasmgraph", "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 1.6 + 0.26 * len(slowest)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        shares = [min(1.0, step.rate / profile.limit) for step in slowest]
        colours = mpl.colormaps["viridis"]([0.15 + 0.75 * share for share in shares])
        bars = axes.barh(labels, [step.seconds * 1e3 for step in slowest], color=colours)
        texts = [
            f"{step.share:.1%}" + (f", {share:.0%} of the limit" if step.flops else "")
            for step, share in zip(slowest, shares, strict=True)
        ]
        axes.bar_label(bars, texts, padding=4, fontsize=8)
        axes.margins(x=0.25)
        axes.set_xlabel("milliseconds")
        axes.set_title(
            f"{Path(profile.graph).name}: {profile.seconds * 1e3:.2f} ms in {len(profile.steps)} "
            f"steps; the limit is {profile.limit / 1e9:.0f} GFLOP/s"
        )
        axes.tick_params(axis="y", labelsize=8)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        with replaced_when_done(path) as unfinished:
            figure.savefig(unfinished, format=path.suffix[1:].lower(), metadata=metadata)
