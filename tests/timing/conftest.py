"""Logs in miniature: each piece of a public log's layout, in our own words and figures."""

import pytest

from timing.log import read_log

BANNER = "=" * 100 + "\n"
SMI_HEAD = """\
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 570.148.08             Driver Version: 570.148.08     CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
"""


class Pieces:
    """What a log is put together from; every method returns text."""

    banner = BANNER
    source = 'import torch\n\nprint0(f"step:{step}/{steps} val_loss:{val_loss:.4f} train_time:{ms:.0f}ms")\n'

    @staticmethod
    def smi(names, cell="{index:>4}  {name:<29} On  "):
        """An nvidia-smi table of the GPUs `names`."""
        rows = []
        for index, name in enumerate(names):
            first = cell.format(index=index, name=name)
            rows.append(f"|{first}|   {0:08X}:{index + 0x19:02X}:00.0 Off |                    0 |\n")
            rows.append("| N/A   33C    P0            120W /  700W |    5858MiB /  81559MiB |      0%      Default |\n")
        return "Sat Oct  4 06:07:53 2025       \n" + SMI_HEAD + "".join(rows)

    @staticmethod
    def environment(gpus=8, torch="2.9.0.dev20250713+cu126"):
        """Versions and the GPUs' table."""
        text = "Running Python 3.12.7 (main, Feb  1 2025, 03:09:49) [GCC 13.2.0]\n"
        text += f"Running PyTorch {torch} compiled for CUDA 12.6\nRunning Triton version 3.4.0\n"
        return text + Pieces.smi(["NVIDIA H100 80GB HBM3"] * gpus)

    @staticmethod
    def metrics(steps=10, every=5, loss=4.0, start=0):
        """Metric lines of era B, 60 ms a step: a validation every so many steps and at the end."""
        lines = []
        for step in range(start, steps + 1):
            if step > start:
                lines.append(f"step:{step}/{steps} train_time:{60 * step}ms step_avg:60.00ms\n")
            if step % every == 0 or step == steps:
                figures = f"val_loss:{loss - step / 100:.4f} train_time:{60 * step}ms step_avg:60.00ms"
                lines.append(f"step:{step}/{steps} {figures}\n")
        return "".join(lines)

    @classmethod
    def log(cls, source=None, environment=None, metrics=None):
        """A whole log in the usual layout."""
        source = cls.source if source is None else source
        environment = cls.environment() if environment is None else environment
        return f"{source}{BANNER}{environment}{BANNER}{cls.metrics() if metrics is None else metrics}"


@pytest.fixture
def pieces():
    """The pieces of a log."""
    return Pieces


@pytest.fixture
def read(tmp_path):
    """Read text or bytes as a log."""

    def read_text(content, name="log.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_log(path)

    return read_text


@pytest.fixture
def said():
    """Whether a note of the run says `words`; gives the line of the first that does, None if none does."""

    def line_of(run, words):
        return next((note.line for note in run.notes if words in note.text), None)

    return line_of
