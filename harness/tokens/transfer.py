"""Several shards fetched at once: bars on a terminal, a line now and then elsewhere, and an end at once on Ctrl-C."""

import contextlib
import datetime
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from harness.tokens import hub

CONNECTIONS = 8
LINE_EVERY_S = 10.0  # between lines where no bar can be drawn
PATIENCE_S = 0.5  # that transfers get to notice that they are to stop; one that waits for the network is left behind


class Stopped(Exception):
    """Raised inside a transfer when another one has failed or the user has had enough."""


def fetch_all(files: list[hub.RemoteFile], folder: Path, show: bool) -> Iterator[tuple[str, dict]]:
    """Yield (name, entry of the manifest) of each file as it arrives in `folder`.

    The first failure stops the others, whose parts stay on disk, and is raised as the UserError that it is. The threads
    are daemons: a transfer that hangs in the network does not keep the program from ending.
    """
    stop, waiting, ended = threading.Event(), queue.SimpleQueue(), queue.SimpleQueue()
    for file in files:
        waiting.put(file)
    with _meters(files, show, stop) as meters:

        def work() -> None:
            with contextlib.suppress(queue.Empty):
                while not stop.is_set():
                    file = waiting.get_nowait()
                    try:
                        ended.put((file.name, hub.fetch(file, folder, meters.of(file))))
                    except BaseException as error:
                        ended.put((file.name, error))

        threads = [threading.Thread(target=work, daemon=True) for _ in files[:CONNECTIONS]]
        try:
            for thread in threads:
                thread.start()
            for _ in files:
                name, entry = _next(ended, meters)
                if isinstance(entry, BaseException):
                    raise entry
                yield name, entry
        finally:
            stop.set()
            deadline = time.monotonic() + PATIENCE_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))


def _next(ended: queue.SimpleQueue, meters: "Bars | Lines") -> tuple[str, dict | BaseException]:
    """The next file that is done, or what went wrong with it; meanwhile the meters speak."""
    while True:
        try:
            return ended.get(timeout=0.2)
        except queue.Empty:
            meters.tick()


class Meter:
    """What a transfer reports to: where it begins, and what arrives."""

    def __init__(self, stop: threading.Event, moved):
        self._stop, self._moved, self._at = stop, moved, 0

    def begin(self, at: int) -> None:
        """The first `at` bytes of the file are there."""
        self._at = at
        self._moved(at)

    def update(self, received: int) -> None:
        """`received` more bytes are on disk. Raises Stopped when the transfer is to end."""
        self._at += received
        self._moved(self._at)
        if self._stop.is_set():
            raise Stopped


@contextlib.contextmanager
def _meters(files: list[hub.RemoteFile], show: bool, stop: threading.Event) -> Iterator["Bars | Lines"]:
    """What suits stderr: bars on a terminal, else lines; silent lines unless `show`."""
    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield Lines(files, show, stop)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        yield Bars(progress, stop)


class Bars:
    """A bar for each file, with its rate and what remains."""

    def __init__(self, progress: Progress, stop: threading.Event):
        self._progress, self._stop = progress, stop

    def of(self, file: hub.RemoteFile) -> Meter:
        """The meter of one file."""
        task = self._progress.add_task(file.name, total=file.size)
        return Meter(self._stop, lambda at: self._progress.update(task, completed=at))

    def tick(self) -> None:
        """A bar draws itself."""


class Lines:
    """A line every ten seconds: how much of all has arrived, how fast, and how long the rest will take."""

    def __init__(self, files: list[hub.RemoteFile], show: bool, stop: threading.Event):
        self._stop, self._show, self._total = stop, show, sum(file.size for file in files)
        self._at: dict[str, int] = {}
        self._began: int | None = None
        self._since = self._spoke = time.monotonic()

    def of(self, file: hub.RemoteFile) -> Meter:
        """The meter of one file."""
        return Meter(self._stop, lambda at: self._at.__setitem__(file.name, at))

    def tick(self) -> None:
        """Speak, if it is time."""
        now, arrived = time.monotonic(), sum(list(self._at.values()))
        if self._began is None:
            self._began = arrived  # what an earlier call had fetched tells nothing of the rate
        if not self._show or now - self._spoke < LINE_EVERY_S:
            return
        self._spoke = now
        rate = max(0, arrived - self._began) / (now - self._since)
        left = f"{datetime.timedelta(seconds=round((self._total - arrived) / rate))} remaining" if rate else "waiting"
        megabytes = f"{arrived / 1e6:,.1f} of {self._total / 1e6:,.1f} MB"
        click.echo(f"FineWeb: {megabytes}, {rate / 1e6:.2f} MB/s, {left}", err=True)
