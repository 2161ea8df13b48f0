"""Ctrl-C, and what amounts to it."""

import contextlib
import signal
import threading

from harness.errors import RunFailed

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(RunFailed):
    """The user, or the machine, ended the run. Exit code as a shell gives it: 128 and the signal's number."""

    def __init__(self, said: str, sign: str = "SIGINT"):
        super().__init__(said)
        self.exit_code = 128 + signal.Signals[sign]


def name_of(interruption: KeyboardInterrupt) -> str:
    """`SIGTERM` and the like: the signal behind an interruption."""
    return signal.Signals(interruption.args[0]).name if interruption.args else "SIGINT"


@contextlib.contextmanager
def interruptible():
    """Let SIGTERM and SIGHUP act like Ctrl-C. Signals belong to the main thread: elsewhere this does nothing."""

    def interrupt(number, frame):
        raise KeyboardInterrupt(number)

    with _handling(interrupt):
        yield


@contextlib.contextmanager
def deaf():
    """Ignore further impatience while the job is being stopped, so that it is stopped to the end."""
    with _handling(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handling(handler):
    """Handle the signals that end a program by `handler` for a while; those ignored already (nohup) stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    for number, previous in before.items():
        if previous is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
