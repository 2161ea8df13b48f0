"""What went wrong in a job that did not end well: the one rank that failed first, in its own words."""

import re
import signal
from pathlib import Path

from timing.text import printable

LAST_LINES = 40
# What a healthy rank says when another one is gone.
COLLATERAL = re.compile(
    r"connection (?:closed|reset|refused|was closed)|broken pipe|DistBackendError|DistNetworkError|\[gloo|gloo/"
    r"|ncclRemoteError|Socket Timeout|recvValue failed|heartbeat",
    re.IGNORECASE,
)
PORT_TAKEN = re.compile(r"EADDRINUSE|address already in use", re.IGNORECASE)
SHUT_DOWN = re.compile(r"SignalException: Process \d+ got signal: (\d+)")  # torchrun's word for being told to end
SIGNAL = re.compile(r"rank\s*:\s*(\d+).*?exitcode\s*:\s*-(\d+)", re.DOTALL)
RANK_PREFIX = re.compile(r"\[rank(\d+)\]: ")
# A record's own `require_finite` and `watch_loss`.
STOPPED_ITSELF = re.compile(r"error: stopped at step (\d+): (.+)")
OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|^MemoryError|can't allocate memory|CUDA out of memory", re.MULTILINE)
STANDING = re.compile(r'^  File "([^"\n]+)", line (\d+) in (\S+)$', re.MULTILINE)  # faulthandler's lines
ERROR_LINE = re.compile(r"(?:\S+: )?error: ")  # a record's own, or argparse's
RANK_FILE = "stderr.log"


def rank_outputs(folder: Path) -> dict[int, Path]:
    """The stderr file of each rank below torchrun's log folder, in the order in which they were last written to."""
    files = [path for path in folder.glob(f"**/{RANK_FILE}") if path.parent.name.isdigit()]
    return {int(path.parent.name): path for path in sorted(files, key=lambda path: path.stat().st_mtime_ns)}


def describe(launcher_stderr: str, ranks: dict[int, str], exit_code: int | None = None) -> str:
    """The failure in words fit for a terminal: a rank's own traceback or error line, or what the launcher itself says.

    `ranks` maps a rank to its stderr, earliest failure first. A rank that only lost touch with the others is passed
    over when another has a reason of its own. `exit_code` is the launcher's, negative for the signal that ended it.
    """
    return printable(_describe(launcher_stderr, ranks, exit_code))


def _describe(launcher_stderr: str, ranks: dict[int, str], exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"the launcher (torchrun) was killed by {signal_name(-exit_code)}"
    if told := SHUT_DOWN.search(launcher_stderr):
        return f"the launcher (torchrun) was told to end by {signal_name(int(told[1]))}"
    if PORT_TAKEN.search(launcher_stderr + "".join(ranks.values())):
        return "the port is in use on this machine: name another with --rdzv-endpoint HOST:PORT"
    spoken = {rank: said for rank, text in ranks.items() if (said := _own_words(text))}
    own = {rank: said for rank, said in spoken.items() if not COLLATERAL.search(said)}
    killed = SIGNAL.search(launcher_stderr.rpartition("Root Cause")[2])  # those it ended itself are listed before
    if own or (spoken and not killed):
        rank, said = next(iter((own or spoken).items()))
        if named := RANK_PREFIX.match(said):  # torch counts the ranks of all nodes, torchrun's files those of this one
            rank = named[1]
        if "No space left on device" in said:
            said += "\n(the disk is full: free some space, or choose another place with --runs-dir)"
        return said if ERROR_LINE.match(said) else f"rank {rank} crashed:\n{said}"
    if killed:
        hint = " (out of memory?)" if killed[2] == "9" else ""
        return f"rank {killed[1]} was killed by {signal_name(int(killed[2]))}{hint}"
    return _own_words(launcher_stderr) or launcher_stderr.strip()[-400:] or "it said nothing on stderr"


def where_they_stood(ranks: dict[int, str], launcher_stderr: str = "") -> list[str]:
    """A line for each rank that said where it stood when it was told to abort: in its script, and what it waited in.

    A rank that is in another place than the others is the one to look at.
    """
    found = {}
    for rank, text in sorted((ranks or {0: launcher_stderr}).items()):
        frames = STANDING.findall(text.rpartition("Current thread")[2])
        own = next((frame for frame in frames if "-packages/" not in frame[0] and "/lib/python" not in frame[0]), None)
        if own:
            path, line, function = own
            within = f", within {frames[0][2]}" if frames[0] is not own else ""
            found[rank] = f"rank {rank} stood at {Path(path).name}:{line} in {function}{within}"
    return [printable(line, 200) for line in found.values()]


def signal_name(number: int) -> str:
    """`SIGKILL (signal 9)`."""
    try:
        return f"{signal.Signals(number).name} (signal {number})"
    except ValueError:
        return f"signal {number}"


def _own_words(text: str) -> str:
    """The last traceback in `text`, or else its last `error:` line, or ""."""
    lines = text.rstrip().splitlines()
    starts = [number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    if starts:
        return "\n".join(lines[starts[0] :][-LAST_LINES:])
    errors = [line for line in lines if ERROR_LINE.match(line)]
    return errors[-1] if errors else ""
