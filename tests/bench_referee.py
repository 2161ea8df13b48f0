"""Verdicts over a folder of synthetic submissions, and how fast they come: python tests/bench_referee.py [--count 200]

Writes submissions of every kind in turn (half of them honest), judges each, and prints a line a kind with its verdicts;
those that are wrong are named. Then all logs are judged at once, in a fresh process: MB/s by the clock and by the time
that all processes of it spent, and the peak memory of the largest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.archive.find import ROOT
from harness.referee.verify import verify
from tests.harness.referee.submissions import EXPECTED, FAILING, HIDING, HONEST, write
from timing.folders import log_files

WHOLE = """
import json, resource, sys, time
from harness.referee.verify import verify
began = time.perf_counter()
verify([sys.argv[1]])
spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
from harness.referee.source import reader
reader._worker.stop()
spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"clock": time.perf_counter() - began, "core": sum(each.ru_utime + each.ru_stime for each in spent),
    "peak": max(each.ru_maxrss for each in spent) * 1024 / 1e6}))
"""


def main() -> None:
    """Write, judge, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    doctored = cycle([*FAILING, *HIDING])
    kinds = [kind if number % 2 else next(doctored) for number, kind in zip(range(count), cycle(HONEST))]
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Counter] = {}
        size, began = 0, time.perf_counter()
        for number, kind in enumerate(kinds):
            path = write(Path(folder, f"{number:03}"), kind, seed=number)
            size += sum(log.stat().st_size for log in path.iterdir())
            found.setdefault(kind, Counter())[verify([path]).verdict] += 1
        for kind, verdicts in sorted(found.items()):
            wrong = sum(verdicts.values()) - sum(verdicts[each] for each in EXPECTED[kind])
            print(f"{kind:40}{dict(verdicts)}" + (f"  {wrong} not {' or '.join(EXPECTED[kind])}" if wrong else ""))
        total = sum(found.values(), Counter())
        print(
            f"{count} submissions, {size / 1e6:.0f} MB: {dict(total)}; {time.perf_counter() - began:.0f} s with writing"
        )
        print("all at once:", at_once(Path(folder)))


def at_once(path: Path) -> str:
    """How fast the log, or all logs of the folder, are judged in a fresh process, in words."""
    said = subprocess.run([sys.executable, "-c", WHOLE, path], capture_output=True, check=True, cwd=ROOT).stdout
    whole, megabytes = json.loads(said), sum(file.stat().st_size for file in log_files(path)) / 1e6
    speeds = f"{megabytes / whole['clock']:.0f} MB/s by the clock, {megabytes / whole['core']:.0f} MB/s a core"
    return f"{megabytes:.0f} MB in {whole['clock']:.1f} s, {speeds}, {whole['peak']:.0f} MB peak"


if __name__ == "__main__":
    main()
