"""Triton's compiler, set to an H100 that is not there: kernels are compiled, to machine code, and never run.

The compiler and NVIDIA's assembler come with Triton and need no GPU. A kernel that does not compile, or whose tiles do
not fit on the chip, or whose machine code reads what nothing has written, is found here; that it computes the right
thing is not (`interpreting.py` does).
"""

import os
from dataclasses import dataclass
from pathlib import Path

from machine_code import lost_numbers

SHARED_MEMORY = 227 << 10  # bytes that a program may have on an H100; CUDA programming guide, compute capability 9.0


@dataclass(frozen=True)
class Compiled:
    """A kernel as it was launched: its name and keyword arguments, the bytes of shared memory that it needs, and the
    instructions in which the assembler has lost a number of 8 bits."""

    name: str
    options: dict
    shared_memory: int
    lost: list[str]


COMPILED: list[Compiled] = []


class H100:
    """What Triton asks of a driver before it launches. Benchmarks call what they should time, once."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device=None) -> int:
        return 0

    def get_benchmarker(self):
        def benchmark(call, quantiles=None):
            call()
            return [1.0, 1.0, 1.0]

        return benchmark


def remember(name: str, options: dict, kernel):
    """Of a launch that has been compiled, for `take_compiled`."""
    COMPILED.append(Compiled(name, options, kernel.metadata.shared, lost_numbers(kernel)))


def begin(cache: Path, keep=remember):
    """Make this process one whose launches compile, for an H100, and end there: `keep` is called with each one's name,
    keyword arguments and Triton's compiled kernel. What is compiled lies in `cache`."""
    os.environ["TRITON_CACHE_DIR"] = str(cache)
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    driver.set_active(H100())
    run = JITFunction.run

    def compile_only(self, *arguments, grid, warmup, **options):
        keep(self.fn.__name__, options, run(self, *arguments, grid=grid, warmup=True, **options))

    JITFunction.run = compile_only


def take_compiled() -> list[Compiled]:
    """All that was compiled since the last call."""
    taken = COMPILED[:]
    COMPILED.clear()
    return taken
