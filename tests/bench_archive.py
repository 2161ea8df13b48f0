"""How fast an archive's worth of logs is judged, in how much memory: python tests/bench_archive.py [--keep FOLDER]

Writes a folder like the public one: a log for each published run, and more until there are 984, 250 MB in all, of the
hundred scripts that made them (the archive's own; those it lacks are stood in for by its last with a helper module).
Losses follow a published curve, times the published pace, both with noise. Then one log of 240 MB of nothing but
metric lines. Each is judged in a fresh process: MB/s by the clock and by the time that all its processes spent, and
the peak memory of the largest. The aims are 50 MB/s a core for the folder, 300 MB for the log.
"""

import argparse
import sys
import tempfile
import zlib
from itertools import cycle, islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.archive.find import ROOT, discover, resolve
from harness.archive.leaderboard import Listing, read_leaderboard, read_runs
from tests.bench_log import metric_lines
from tests.bench_log import write as write_lines
from tests.bench_referee import at_once
from tests.harness.referee.submissions import Log

LOGS, SINGLE = 984, 240_000_000
GPU_PROCESS = "|    0   N/A  N/A          267215      C   /usr/bin/python3                       1510MiB |"
HELPER = "\n\n" + "-" * 40 + "\n# {}.py\n" + "-" * 40 + "\n\n{}"


def main() -> None:
    """Write, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the folder of logs goes and stays")
    kept = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder, single = kept or Path(temporary, "archive"), Path(temporary, "log.txt")
        if not folder.exists():
            write_archive(folder)
        print("984 logs:", at_once(folder))
        write_lines(single, metric_lines(), SINGLE)
        print("one log:", at_once(single))


def write_archive(folder: Path) -> None:
    """A folder of logs for each record, each log under the name of a published run or one like it."""
    rng = np.random.default_rng(0)
    listed = {listing.number: listing for listing in read_leaderboard(ROOT)}
    runs = read_runs(ROOT)
    for number, row in enumerate(islice(cycle(runs), LOGS)):
        path = folder / row["number"] / f"{number:04}-{row['log']}"
        path.parent.mkdir(parents=True, exist_ok=True)
        log = log_like(row, listed[row["number"]], rng, longer=1 if number < len(runs) else 7)
        path.write_text(log.text())


def log_like(row: dict[str, str], listing: Listing, rng: np.random.Generator, longer: int) -> Log:
    """A log of a published run's steps (so many times as many), with about its pace, and record 40's curve."""
    steps, curve = longer * int(row["steps"]), dict(resolve("40").curve)
    validated = [*range(0, steps, 125), steps]
    loss = np.interp(np.array(validated) / steps, np.array(list(curve)) / max(curve), list(curve.values()))
    loss += rng.normal(0, 0.002, len(validated))
    pace = float(row["final_train_time_ms"]) / int(row["steps"])
    time = np.concatenate([[0.0], np.cumsum(pace * rng.normal(1, 0.02, steps))])
    date = f"{listing.date:%a %b %e} 06:00:33 {listing.date:%Y}"
    losses = dict(zip(validated, loss.tolist(), strict=True))
    table = [GPU_PROCESS] * 80
    return Log(losses, time, script_of(row), date, listing.torch, steps, edit=lambda lines: table + lines)


def script_of(row: dict[str, str]) -> str:
    """A script for the source that a published run had: as long as the public ones, another for each of them."""
    scripts = {record.number: record.script for record in discover()}
    text = scripts.get(row["number"], scripts["40"]).read_text() + f'SOURCE = "{row["source"]}"\n'
    if row["number"] in scripts:
        return text
    others = list(scripts.values())
    return text + HELPER.format("helper", others[zlib.crc32(row["source"].encode()) % len(others)].read_text())


if __name__ == "__main__":
    main()
