"""A train script of collectives alone: each step is an all_reduce, and rank 1 fails in the middle of step 3.

`--do` one of: killed (by a signal, while rank 0 waits for it), hang (it never joins in).
"""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist


def step(number, rank, do):
    """One step; rank 1 does not come to the third."""
    if number == 3 and rank == 1:
        time.sleep(0.5)  # rank 0 is inside by now
        if do == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        oversleep()
    dist.all_reduce(torch.ones(4))


def oversleep():
    """What hangs."""
    time.sleep(300)


dist.init_process_group("gloo")
for number in range(5):
    step(number, dist.get_rank(), sys.argv[1])
    if dist.get_rank() == 0:
        print(f"step:{number + 1}/5 train_time:{number}ms step_avg:1.00ms", flush=True)
