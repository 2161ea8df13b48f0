"""Telemetry lines, read back by name and step."""

import math

import pytest

from timing.log import LogError, read_log
from timing.telemetry import read_telemetry


def test_figures_come_back_by_name(tmp_path, pieces):
    lines = "telemetry step:5 grad_norm:1.25 muon.error:1e-3 activation_rms:[1.5, 2.5] empty:[] odd:x\n"
    lines += "telemetry nothing\ntelemetry step:6 grad_norm:nan\ntelemetry step:7 grad_norm:[1,"
    path = tmp_path / "log.txt"
    path.write_text(pieces.log(metrics=pieces.metrics() + lines))
    read = read_telemetry(path)
    assert [entry.step for entry in read] == [5, 6, 7]
    odd = read[0].figures.pop("odd")
    assert math.isnan(odd[0]) and math.isnan(read[1].figures["grad_norm"][0])
    assert read[0].figures == {"grad_norm": (1.25,), "muon.error": (0.001,), "activation_rms": (1.5, 2.5), "empty": ()}
    assert read[2].figures == {}
    assert {entry.line for entry in read} < set(read_log(path).telemetry_line.tolist())


def test_a_missing_log_is_a_log_error(tmp_path):
    with pytest.raises(LogError, match="No such file"):
        read_telemetry(tmp_path / "absent")
