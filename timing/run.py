"""What one log says: the frozen result of `timing.log.read_log`."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np


class LogError(ValueError):
    """A file that cannot be read as a log; the message is one line: what is wrong, where, what to do."""


@dataclass(frozen=True)
class Note:
    """Something wrong or odd in a log, with the line (from 1) that shows it; line 0 means the file as a whole."""

    line: int
    text: str


@dataclass(frozen=True, eq=False)
class Run:
    """One log, read. Text that came from the log is free of control characters, except `source` and `helpers`.

    Arrays named `val_*` have one entry per validation line and those named `train_*` one per training line, in the
    order of the log: `step` and `line` (from 1) are int64; `loss` in nats per token, `time_ms` and `step_avg_ms` in
    milliseconds are float64, nan where the line does not say.
    """

    path: str
    dialect: str  # "step" or "llmc"; a log without metric lines counts as "step"
    planned_steps: int | None

    val_step: np.ndarray
    val_loss: np.ndarray
    val_time_ms: np.ndarray
    val_step_avg_ms: np.ndarray
    val_line: np.ndarray
    train_step: np.ndarray
    train_loss: np.ndarray
    train_time_ms: np.ndarray
    train_step_avg_ms: np.ndarray
    train_line: np.ndarray

    source: str | None  # the training script; undecodable bytes are replaced (a note says so)
    helpers: tuple[tuple[str, str], ...]  # (name, text) of appended helper modules; the names are the log's: no paths
    source_sha256: str | None  # of the source block's bytes, helpers included: for a lone script, of its file
    source_hashes: tuple[str, ...]  # of the same block as others take it, see `timing.layout.renderings`
    source_line: int | None

    python: str | None
    python_built: str | None  # day of the interpreter's build, ISO 8601
    torch: str | None
    cuda: str | None
    triton: str | None
    driver: str | None
    gpu: str | None  # name in the nvidia-smi table, or of a mixed table the names joined by " + "
    gpus: int | None  # rows of the nvidia-smi table: GPUs of the machine, while world_size counts ranks
    gpu_ids: str | None  # bus ids of those rows, or UUIDs of `nvidia-smi -L`, in order and joined by commas
    device: str | None  # GPU name as the script itself printed it
    world_size: int | None
    date: str | None  # ISO 8601, in the zone of the machine unless it ends in Z
    seed: str | None
    overrides: dict[str, str]
    manifest: str | None
    fidelity: str | None
    run_id: str | None  # as logged, else the file's name where that is a UUID
    peak_memory_mib: int | None

    telemetry_line: np.ndarray  # int64; `timing.telemetry.read_telemetry` reads their figures
    fallbacks: tuple[Note, ...]  # "fallback step:7 fp8 -> bf16: ..." lines
    restart_line: np.ndarray  # int64: where the step counter starts again, in a log that holds several runs
    spliced_line: int | None  # where another log, with a source or an environment of its own, seems to start

    lines: int
    bytes: int
    digest: str  # sha256 of the file
    env_line: dict[str, int]  # line of each environment fact, by field name; an override's as "override <name>"
    notes: tuple[Note, ...]
    stop_step: int | None = None  # where the run said, before its first step, that it would stop short of the plan

    @property
    def steps(self) -> int:
        """Step of the last metric line; 0 if there is none."""
        last = [(line[-1], step[-1]) for line, step in self._columns() if len(line)]
        return int(max(last)[1]) if last else 0

    @property
    def complete(self) -> bool:
        """Whether the run reached its end.

        With a planned step count in the log: the last validation stands at it (or at the announced `stop_step`), and no
        other run starts after. In llm.c's dialect, which has no such count: the log ends with a validation, of a step
        after the last trained one.
        """
        if not len(self.val_step):
            return False
        step, line = self.val_step[-1], self.val_line[-1]
        later = self.train_step[self.train_line > line]
        if self.planned_steps is not None:
            return bool(step in (self.planned_steps, self.stop_step) and not (later < step).any())
        return bool(not len(later) and len(self.train_step) and step > self.train_step[-1])

    @property
    def final_val_loss(self) -> float | None:
        """Loss of the last validation (nan if the log says nan), None without any."""
        return float(self.val_loss[-1]) if len(self.val_loss) else None

    @property
    def final_train_time_ms(self) -> float | None:
        """Training time at the last validation, None where the log has none."""
        return _known(self.val_time_ms)

    @property
    def final_step_avg_ms(self) -> float | None:
        """Average step time at the last validation, None where the log has none."""
        return _known(self.val_step_avg_ms)

    @property
    def median_step_ms(self) -> float | None:
        """Median milliseconds of a training step, each taken over two neighbouring spans of training lines, since some
        optimizers step every second time. Spans over a clock that was set back are left out; None without any."""
        steps, times = (column[2:] - column[:-2] for column in (self.train_step, self.train_time_ms))
        good = (steps > 0) & (times > 0)
        return float(np.median(times[good] / steps[good])) if good.any() else None

    def trials(self) -> tuple["Run", ...]:
        """The runs that stand one after another in this log, each as a Run of its own; (self,) in an ordinary log."""
        if not len(self.restart_line):
            return (self,)
        bounds = [0, *self.restart_line.tolist(), self.lines + 1]
        return tuple(self._between(first, end) for first, end in pairwise(bounds))

    def _between(self, first: int, end: int) -> "Run":
        """This run with only the metric lines first <= line < end."""
        columns = {}
        for kind in ("val", "train"):
            line = getattr(self, f"{kind}_line")
            keep = slice(*np.searchsorted(line, [first, end]))
            for name in ("step", "loss", "time_ms", "step_avg_ms", "line"):
                columns[f"{kind}_{name}"] = getattr(self, f"{kind}_{name}")[keep]
        return replace(self, restart_line=np.empty(0, np.int64), **columns)

    def _columns(self):
        return (self.train_line, self.train_step), (self.val_line, self.val_step)


def _known(column: np.ndarray) -> float | None:
    return float(column[-1]) if len(column) and not np.isnan(column[-1]) else None
