"""The public sample logs, where this machine has them: every figure to the digit."""

import csv
from pathlib import Path

import pytest

from timing.log import read_log

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "logs"
EXPECTED = SAMPLES / "expected.csv"
ROWS = list(csv.DictReader(EXPECTED.open())) if EXPECTED.is_file() else []


@pytest.mark.skipif(not ROWS, reason="the public sample logs (../shared/logs) are not on this machine")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_a_public_log_reads_to_the_digit(row):
    run = read_log(SAMPLES / row["file"])
    read = {
        "dialect": run.dialect,
        "last_step": run.steps,
        "planned_steps": run.planned_steps,
        "validations": len(run.val_step),
        "final_val_loss": run.final_val_loss,
        "final_train_time_ms": run.final_train_time_ms,
        "final_step_avg_ms": run.final_step_avg_ms,
        "torch": run.torch,
        "gpus": run.gpus,
        "gpu": run.gpu,
    }
    kinds = {"last_step": int, "planned_steps": int, "validations": int, "gpus": int}
    kinds |= {name: float for name in read if name.startswith("final_")}
    expected = {name: kinds.get(name, str)(row[name]) if row[name] else None for name in read}
    assert read == expected
