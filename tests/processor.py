"""Processor time of a call, as it is without what else the test's process has to do."""

import gc
import time
from collections.abc import Callable


def seconds_of(call: Callable[[], object], repeats: int = 3) -> float:
    """The least processor time, in seconds, of several calls, the garbage collector standing still: one walk through
    the heap of a worker that has loaded PyTorch takes half a second, and may fall into any call."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return min(_once(call) for _ in range(repeats))
    finally:
        if collecting:
            gc.enable()


def _once(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began
