"""A train script of collectives alone: each step is an all_reduce; rank 1 fails in the middle of the fourth.

Its argument is one of: killed (by a signal, while rank 0 waits for it), hang (it never joins in), finish (no failure).
"""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist


def step(number, rank, do):
    """One step; rank 1 does not come to number 3."""
    if number == 3 and rank == 1 and do != "finish":
        time.sleep(0.5)  # rank 0 is inside by now
        if do == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        oversleep()
    total = torch.ones(4)
    dist.all_reduce(total)
    assert total[0] == dist.get_world_size()


def oversleep():
    """What hangs."""
    time.sleep(300)


dist.init_process_group("gloo")
for number in range(5):
    step(number, dist.get_rank(), sys.argv[1])
    if dist.get_rank() == 0:
        print(f"step:{number + 1}/5 train_time:{number}ms step_avg:1.00ms", flush=True)
if dist.get_rank() == 0:
    print(f"step:5/5 val_loss:{dist.get_world_size()}.0000 train_time:5ms step_avg:1.00ms", flush=True)
dist.destroy_process_group()
