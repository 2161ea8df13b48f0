"""How old the software of a run is: the earliest day on which what a log names can have run.

A nightly build carries its day, NVIDIA's containers carry their month, Python prints the day of its build, and releases
of PyTorch are dated by https://github.com/pytorch/pytorch/releases. A date in a log that lies before is no date.
"""

import datetime
import re

from timing.run import Run

RELEASES = {
    (2, 0): "2023-03-15",
    (2, 1): "2023-10-04",
    (2, 2): "2024-01-30",
    (2, 3): "2024-04-24",
    (2, 4): "2024-07-24",
    (2, 5): "2024-10-17",
    (2, 6): "2025-01-29",
    (2, 7): "2025-04-23",
    (2, 8): "2025-08-06",
    (2, 9): "2025-10-15",
    (2, 10): "2026-01-21",
}
"""First release of each version of PyTorch; later ones are younger than the last."""

CANDIDATE_DAYS = 45
"""Release candidates carry the release's number and are there some weeks before it."""

_NIGHTLY = re.compile(r"\.dev(20\d\d)(\d\d)(\d\d)")
_CONTAINER = re.compile(r"\+\S*nv(\d\d)\.(\d\d)")
_RELEASE = re.compile(r"(\d+)\.(\d+)\.\d+(?![\w.]*(?:dev|a0))")


def earliest(run: Run) -> tuple[datetime.date, str] | None:
    """(the earliest day on which the run's software was there, which software says so), None if nothing tells."""
    known = [(day, f"PyTorch {run.torch}") for day in _torch_days(run.torch or "")]
    if run.python_built:
        known.append((datetime.date.fromisoformat(run.python_built), f"Python built on {run.python_built}"))
    return max(known, default=None)


def _torch_days(version: str) -> list[datetime.date]:
    try:
        if nightly := _NIGHTLY.search(version):
            return [datetime.date(*map(int, nightly.groups()))]
        if container := _CONTAINER.search(version):
            year, month = map(int, container.groups())
            return [datetime.date(2000 + year, month, 1) - datetime.timedelta(days=CANDIDATE_DAYS)]
    except ValueError:
        return []
    release = _RELEASE.match(version)
    if not release:
        return []
    wanted = (int(release[1]), int(release[2]))
    released = [day for number, day in RELEASES.items() if number <= wanted]
    slack = datetime.timedelta(days=CANDIDATE_DAYS)
    return [datetime.date.fromisoformat(released[-1]) - slack] if released else []
