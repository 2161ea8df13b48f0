"""`harness chart telemetry RUN`: every figure that a run's telemetry has finds its panel."""

import json

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.errors import UserError
from harness.history import inside

LOG = """{ruler}
Running Python 3
{ruler}
step:0/4 val_loss:10.8000 train_time:0ms step_avg:0.00ms
telemetry step:0 grad_norm:2.0e+00 weight_norm:1.0e+02 update_norm:1.0e+00 activation_rms:[1.0,2.0,4.0] \
fp8_saturation:0.001 muon_momentum:0.85 muon_orthogonality_error:0.2
fallback step:2 fp8 -> bf16: 2% of the head's weights are beyond 0.875
telemetry step:2 grad_norm:1.0e+00 weight_norm:1.1e+02 update_norm:nan activation_rms:[1.5,2.5,4.5] \
fp8_saturation:0.02 muon_momentum:0.86 muon_orthogonality_error:0.1
step:4/4 val_loss:9.0000 train_time:40ms step_avg:10.00ms
""".replace("{ruler}", "=" * 100)


@pytest.fixture
def run(tmp_path):
    """A run folder with telemetry, a fallback and a breach."""
    folder = tmp_path / "20260101-000000-000000"
    folder.mkdir()
    (folder / "log.txt").write_text(LOG)
    facts = {"schema": 1, "slug": "backout", "fidelity": "stand-in", "breaches": [{"step": 3, "kind": "rising"}]}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def test_every_figure_has_its_panel(run):
    data = inside.telemetry(run)
    frame, marks = data["telemetry"], data["marks"]
    found = {panel: list(dict.fromkeys(rows.series)) for panel, rows in frame.groupby("panel")}
    assert found == {
        "loss": ["loss"],
        "norms": ["gradient", "weights", "update"],
        "activations": ["block 0", "block 1", "block 2"],
        "FP8": ["saturation"],
        "Muon": ["orthogonality error"],
    }
    assert frame[frame.series == "saturation"].value.tolist() == [0.001, 0.02]
    assert frame[frame.panel == "loss"].step.tolist() == [0, 4]
    assert marks.step.tolist() == [2, 3] and marks.text[1] == "rising"


def test_the_command_draws_beside_the_run(run, tmp_path):
    result = CliRunner().invoke(main, ["chart", "telemetry", str(run)])
    assert result.exit_code == 0, result.output
    made = sorted(path.name for path in run.glob("telemetry*"))
    assert len(made) == 8 and "telemetry-column-dark.svg" in made
    result = CliRunner().invoke(main, ["chart", "telemetry", str(run / "log.txt"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0 and (tmp_path / "out" / "telemetry-log.txt-light.svg").exists()


def test_a_run_without_telemetry_and_no_run(run):
    (run / "log.txt").write_text("\n".join(line for line in LOG.splitlines() if "telemetry" not in line))
    with pytest.raises(UserError, match="replay with --telemetry STEPS"):
        inside.telemetry(run)
    result = CliRunner().invoke(main, ["chart", "telemetry"])
    assert result.exit_code == 2 and "which run?" in result.stderr
