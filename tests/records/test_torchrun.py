"""The way users start a record: `torchrun --standalone`, on one record with DDP and one with sharded optimizers.

All other runs of the tests are forked (`forks.py`), which imitates torchrun; here it is torchrun itself.
"""

import os
import subprocess
import sys

import forks
import pytest

from harness.archive.find import load
from timing.log import read_log


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", ["01", "24"])
def test_torchrun_runs_it(number, folder_of, corpus, tmp_path):
    """Two ranks: the run ends well and learns, and with the same curve as forked ranks."""
    record = load(folder_of(number))
    settings = record.smoke | {"data_dir": corpus[0], "seed": 1}
    _, (script, arguments, _) = forks.script(record.script, settings | {"log_file": tmp_path / "log.txt"})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | forks.ENVIRONMENT
    ended = subprocess.run(
        [*launcher, script, *arguments], env=environment, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    run = read_log(tmp_path / "log.txt")
    assert run.complete and run.val_loss[0] - run.val_loss[-1] >= record.smoke_margin

    forked = forks.script(record.script, settings | {"log_file": tmp_path / "forked.txt"})
    assert [rank.code for rank in forks.run(*forked, 2, tmp_path / "forks")] == [0, 0]
    assert read_log(tmp_path / "forked.txt").val_loss.tolist() == run.val_loss.tolist()
