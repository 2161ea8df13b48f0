"""Triton kernels on a machine without a GPU: run by Triton's interpreter, or compiled for an H100 and not run.

A script launches a kernel where a tensor is on CUDA, with a grid of its own. Here its tensors say that they are, so
that the script's launch is tested with the kernel. Triton must be told before it is imported, and tensors that lie
would disturb PyTorch elsewhere: so all of this happens in one process beside the tests, which sends back results.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from inspect import signature
from pathlib import Path

import torch
from scripts import definitions

record = cache(definitions)


@contextmanager
def process(begin: Callable, *arguments):
    """A process that has called `begin(*arguments)` before it imported Triton. Gives what calls a function there, with
    arguments that can be pickled, and returns or raises what it does. Tensors are not copied on their way: what it
    writes into one is seen here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, settle, (begin, *arguments)) as executor:
        yield lambda function, *arguments: executor.submit(function, *arguments).result()


def settle(begin: Callable, *arguments):
    """In the process: no GPU, one thread, and `begin`."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    assert "triton" not in sys.modules, "too late to tell Triton anything"
    begin(*arguments)


@contextmanager
def tensors_on_cuda():
    """Every tensor says that it is on CUDA."""
    torch.Tensor.is_cuda = property(lambda tensor: True)
    try:
        yield
    finally:
        del torch.Tensor.is_cuda  # the inherited one is seen again


def arguments(function: Callable, offered: dict) -> list:
    """Of what is offered, by name, what a function takes, in its order."""
    return [offered[name] for name in signature(function).parameters]


def launch(folder: Path, name: str, *arguments):
    """What a function of a script returns on CUDA; its arguments, if it writes into them and returns nothing."""
    with torch.no_grad(), tensors_on_cuda():
        result = getattr(record(folder), name)(*arguments)
    return arguments if result is None else result


def launch_every_tile(folder: Path, name: str, *arguments) -> list:
    """The same with each configuration of the script's autotuners in turn."""
    from triton.runtime.autotuner import Autotuner

    tuned = [value for value in vars(record(folder)).values() if isinstance(value, Autotuner)]
    results = []
    for tile in record(folder).TILES:
        for kernel in tuned:
            kernel.configs = [tile]
        fresh = [argument.clone() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        results.append(launch(folder, name, *fresh))
    return results
