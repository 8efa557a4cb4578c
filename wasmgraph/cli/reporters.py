"""How progress looks: `RichReporter` on a terminal, `PlainReporter` on a pipe or in a log.

Both write to stderr only. Imported when a command runs stages, since it needs rich.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text

from wasmgraph.progress import Reporter
from wasmgraph.runtime.base import printable

STAGE_WIDTH = 10
"""Columns for a stage's name, so that the times line up."""


class PlainReporter(Reporter):
    """One line per finished stage, such as `import       1.23 s`; warnings and, if asked, details.

    Args:
        console: Writes to stderr.
        silent: Only warnings (and details, when verbose).
        verbose: Details as well.
    """

    def __init__(self, console: Console, *, silent: bool = False, verbose: bool = False) -> None:
        self._console = console
        self._silent = silent
        self._verbose = verbose

    def __enter__(self) -> PlainReporter:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def finish(self, stage: str, seconds: float) -> None:
        """Print the stage's line."""
        if not self._silent:
            self._line(f"{stage:<{STAGE_WIDTH}}{seconds:7.2f} s")

    def log(self, message: str) -> None:
        """Print a detail, if verbose."""
        if self._verbose:
            self._line(f"  {message}")

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._line(f"warning: {message}")

    def _line(self, text: str) -> None:
        self._console.print(printable(text), soft_wrap=True)


class RichReporter(Reporter):
    """A line per stage with a spinner, a bar where the number of steps is known, and its time.

    Details are for a verbose user, who gets plain lines.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        done = "✓" if console.encoding.lower().startswith("utf") else "+"
        self._progress = Progress(
            SpinnerColumn(finished_text=Text(done, style="green")),
            TextColumn("{task.description}", markup=False),
            _Seconds(),
            _Bar(bar_width=24),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=console,
        )

    def __enter__(self) -> RichReporter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self._task is not None and kind is not None:
            # The stage that failed must not stay on the screen as if it were still at work.
            self._progress.update(self._task, visible=False)
        self._progress.stop()

    def start(self, stage: str, total: int | None = None) -> None:
        """Open the stage's line."""
        self._task = self._progress.add_task(
            f"{stage:<{STAGE_WIDTH}}", total=total, detail="", steps=total is not None
        )

    def set_total(self, total: int) -> None:
        """Turn the stage's line into a bar."""
        if self._task is not None:
            self._progress.update(self._task, total=total, steps=True)

    def advance(self, detail: str = "") -> None:
        """Move the bar by one step."""
        if self._task is not None:
            self._progress.update(self._task, advance=1, detail=_shortened(detail))

    def finish(self, stage: str, seconds: float) -> None:  # noqa: ARG002
        """Tick the stage off with its time."""
        if self._task is not None:
            self._progress.update(
                self._task, total=1, completed=1, detail="", steps=False, seconds=seconds
            )
            self._task = None

    def warn(self, message: str) -> None:
        """Print a warning above the bars."""
        self._console.print(
            Text.assemble(("warning: ", "yellow"), printable(message)), soft_wrap=True
        )


class _Bar(BarColumn):
    """A bar for a stage whose number of steps is known, nothing for the others."""

    def render(self, task: Task) -> ProgressBar | Text:  # type: ignore[override]
        return super().render(task) if task.fields["steps"] else Text("")


class _Seconds(ProgressColumn):
    """The stage's own time when it is done, else the time since it began."""

    def render(self, task: Task) -> Text:
        seconds = task.fields.get("seconds", task.elapsed or 0.0)
        return Text(f"{seconds:7.2f} s")


def _shortened(detail: str, width: int = 48) -> str:
    detail = printable(detail)
    return detail if len(detail) <= width else detail[: width - 1] + "…"
