"""What the scripts compile on CUDA can be traced, and is traced before the clock runs.

A script that breaks the compiler, or compiles anew for a new batch, would only be found out on a GPU; Dynamo, which
needs none, finds it here. The script itself runs: its model, its `train_step`, its optimizers, its validation.

A script that has run on a GPU as it is frozen has been compiled there. Of those the landmarks alone are traced, for the
sake of another PyTorch than that one's; REHEARSAL=1 asks for all.
"""

import json
import os
from functools import partial

import pytest
import smoke
import tracing

from harness.archive.find import load

LANDMARKS = ("05", "12", "24", "40")


@pytest.mark.timeout(300)
def test_all_is_compiled_before_the_clock(folder, corpus, tmp_path):
    """Whole graphs (the scripts ask for `fullgraph`), and in the timed steps no new one, whatever the batch holds: in
    era B none in any step, in era A none once its untimed steps are over. Validation, which is not timed, may."""
    record = load(folder)
    if record.shown and record.shown.machine and record.number not in LANDMARKS and not os.environ.get("REHEARSAL"):
        pytest.skip("a GPU has compiled it as it is frozen")
    report = tmp_path / "graphs.jsonl"
    untimed = record.smoke.get("untimed_iterations", 0)
    settings = {"num_iterations": untimed + 4, "val_loss_every": 0} | smoke.shortest_step(record)
    settings.pop("warmup_iterations", None)  # which must meet every window
    before = partial(tracing.compile_as_on_cuda, report)
    with smoke.start(record, 1, corpus[0], tmp_path, before, **settings) as job:
        assert smoke.finish(job).run.complete
    graphs = [json.loads(line) for line in report.read_text().splitlines()]
    assert graphs, "nothing was compiled"
    late = [step for step, training in graphs if training and step is not None and step >= untimed]
    assert not late, f"compiled on the clock, at steps {late}"
