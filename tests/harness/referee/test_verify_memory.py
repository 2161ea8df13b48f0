"""A log of hundreds of thousands of lines is judged in a small multiple of the memory that its figures take."""

import tracemalloc
from itertools import islice

from harness.referee.verify import verify
from tests.bench_log import metric_lines

LINES, BYTES_A_LINE = 400_000, 32  # step, time, average and line: eight bytes each


def peak_of_verdict(path) -> int:
    """Bytes held at once, at most, while a log is judged."""
    tracemalloc.start()
    try:
        verify([path])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_long_log_is_judged_a_stretch_at_a_time(tmp_path):
    short, long = tmp_path / "short.txt", tmp_path / "long.txt"
    short.write_text("".join(islice(metric_lines(), 1_000)))
    with long.open("w") as file:
        file.writelines(islice(metric_lines(), LINES))
    peak_of_verdict(short)  # what is read and imported once for all verdicts does not count
    assert peak_of_verdict(long) < 3 * LINES * BYTES_A_LINE
