"""Live progress of a run: a bar on a terminal, plain lines anywhere else."""

import contextlib
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from timing.witness import Metric

PLAIN_EVERY_S = 10.0  # between plain lines, validations apart


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Remaining:
    """How long a run still takes, by the launcher's own clock since the first metric line."""

    def __init__(self):
        self._first = None

    def after(self, metric: Metric, clock_s: float) -> float | None:
        """Seconds left after this line, None before there are two steps to judge by."""
        if self._first is None:
            self._first = (metric.step, clock_s)
        step, since = self._first
        if metric.step == step:
            return None
        return (metric.planned - metric.step) * (clock_s - since) / (metric.step - step)


class PlainProgress:
    """A line for every validation, and one now and then between them."""

    def __init__(self, console: Console, title: str):
        self._console, self._title, self._remaining, self._spoke = console, title, Remaining(), 0.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def __call__(self, metric: Metric, clock_s: float) -> None:
        """Hear one metric line."""
        left = self._remaining.after(metric, clock_s)
        if metric.kind != "val" and time.monotonic() - self._spoke < PLAIN_EVERY_S:
            return
        self._spoke = time.monotonic()
        loss = f"val_loss {metric.loss:.4f}" if metric.kind == "val" else f"{metric.step_avg_ms or 0:.1f} ms a step"
        ahead = f"  {clock(left)} remaining" if left is not None else ""
        self._console.print(
            f"{self._title}  step {metric.step}/{metric.planned}  {loss}  {clock(clock_s)} elapsed{ahead}"
        )


class LiveProgress:
    """A bar with step, last validation loss, time and what remains."""

    def __init__(self, console: Console, title: str):
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task(title, total=None, state="starting", left="")
        self._remaining, self._loss, self._kept = Remaining(), "", contextlib.ExitStack()

    def __enter__(self):
        self._kept.enter_context(self._progress)
        return self

    def __exit__(self, *error):
        self._kept.close()

    def __call__(self, metric: Metric, clock_s: float) -> None:
        """Hear one metric line."""
        left = self._remaining.after(metric, clock_s)
        if metric.kind == "val":
            self._loss = f"  val_loss {metric.loss:.4f}"
        self._progress.update(
            self._task,
            total=metric.planned,
            completed=metric.step,
            state=f"step {metric.step}/{metric.planned}{self._loss}",
            left="" if left is None else f"{clock(left)} remaining",
        )


def progress(console: Console, title: str) -> LiveProgress | PlainProgress:
    """The progress that suits the console."""
    return LiveProgress(console, title) if console.is_terminal else PlainProgress(console, title)
