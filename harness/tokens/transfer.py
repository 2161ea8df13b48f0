"""Several shards fetched at once, with a bar for each."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from harness.tokens import hub

CONNECTIONS = 8


class Stopped(Exception):
    """Raised inside a transfer when another one has failed or the user has had enough."""


def fetch_all(files: list[hub.RemoteFile], folder: Path, show: bool) -> Iterator[tuple[str, dict]]:
    """Yield (name, entry of the manifest) of each file as it arrives in `folder`.

    The first failure stops the others, whose parts stay on disk, and is raised as the UserError that it is.
    """
    stop = threading.Event()
    with _bars(show, stop) as meter, ThreadPoolExecutor(CONNECTIONS) as pool:
        jobs = {pool.submit(hub.fetch, file, folder, meter(file)): file.name for file in files}
        try:
            for job in as_completed(jobs):
                yield jobs[job], job.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _bars(show: bool, stop: threading.Event) -> Iterator[Callable]:
    """Gives `meter(file)`, which draws the file's progress bar and is, for the library, a class of tqdm."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not show) as progress:

        def meter(file: hub.RemoteFile) -> Callable:
            task = progress.add_task(file.name, total=file.size)

            def begin(initial: int = 0, **_) -> Bar:
                progress.update(task, completed=initial)
                return Bar(progress, task, stop)

            return begin

        yield meter


class Bar(contextlib.AbstractContextManager):
    """The little of tqdm that a transfer calls, painted by rich."""

    def __init__(self, progress: Progress, task: int, stop: threading.Event):
        self.progress, self.task, self.stop = progress, task, stop

    def __exit__(self, *_) -> None:
        """Leave the bar standing as it is."""

    def update(self, received: int) -> None:
        """`received` more bytes have arrived (fewer, when negative). Raises Stopped when the transfer is to end."""
        if self.stop.is_set():
            raise Stopped
        self.progress.advance(self.task, received)
