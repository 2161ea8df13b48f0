"""Machine code of kernels, made here and launched elsewhere: whether it would be seen that it is wrong."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

COMMAND = [sys.executable, str(Path(__file__).with_name("cubins.py"))]
IDLE = """
class RawModule:
    def __init__(self, path):
        assert open(path, "rb").read(4) == b"\\x7fELF"

    def get_function(self, name):
        return Kernel()

class Kernel:
    def __call__(self, grid, block, arguments, shared_mem):
        print("launched", grid, block, [type(each).__name__ for each in arguments])
"""
ON_THE_CPU = "import pathlib, sys, cubins; sys.exit(not cubins.run_there(pathlib.Path(sys.argv[1]), 'cpu'))"


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_that_write_nothing_are_seen_to_be_wrong(tmp_path):
    """Compiled for an H100, and launched by a stand-in for CuPy that does nothing."""
    folder = tmp_path / "cubins"
    subprocess.run([*COMMAND, "compile", str(folder)], check=True, timeout=240)
    (tmp_path / "cupy.py").write_text(IDLE)
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {COMMAND[1].rpartition('/')[0]!r}]; {ON_THE_CPU}"
    ended = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=240)
    told = [line for line in ended.stdout.splitlines() if "wrong:" in line]
    assert ended.returncode == 1 and len(told) >= 4 * 4, ended.stderr
    assert not any("wrong: 0." in line for line in told)
    launched = [line for line in ended.stdout.splitlines() if line.startswith("launched")]
    assert len(launched) == len(told)
    assert launched[0] == "launched (12, 16, 1) (256, 1, 1) " + str(["uint64"] * 3 + ["int32"] * 2 + ["uint64"] * 2)
