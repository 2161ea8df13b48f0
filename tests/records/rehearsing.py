"""A GPU's run without a GPU: a whole train script at the record's size, on tensors that have shapes and no values.

The script believes that it is on CUDA where it asks a tensor, or decides to compile; so Dynamo and AOTAutograd trace
its kernels, attention and 8-bit products, forward and backward, for every graph that its warmup and its steps make, and
nothing is computed. Its collectives return at once, as rank 0 of so many. Numbers that it reads off tensors are zero.

What it cannot show: values, memory, time, NCCL, and what Inductor makes of a graph.
"""

import linecache
import os
import runpy
import sys
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.attention import flex_attention


class Enough(Exception):
    """The rehearsal has seen as many steps as it should."""


def rehearse(script: Path, ranks: int, steps: int, arguments: list[str]) -> dict[str, int]:
    """Run so many steps of a script on tensors without values, as rank 0 of so many ranks, all else as in the record.
    Returns Dynamo's counts of what it captured."""
    from torch._dynamo.utils import counters
    from torch._subclasses.fake_tensor import FakeTensorMode

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks)}
    sys.argv = [str(script), *arguments]
    seem_on_cuda(script)
    compile_without_inductor()
    communicate_with_nobody(ranks)
    read_zeros()
    torch.nn.Module._apply = convert_parameters

    def say(line: str, flush: bool):
        if line.startswith(f"step:{steps}/") and "val_loss" not in line:
            raise Enough

    with suppress(Enough), FakeTensorMode(allow_non_fake_inputs=True):
        runpy.run_path(str(script), {"print": say}, "__main__")
    return dict(counters["stats"])


def seem_on_cuda(script: Path):
    """For the script alone, and for what Dynamo traces: PyTorch's own questions get the true answer."""
    from torch._dynamo.variables.constant import ConstantVariable
    from torch._dynamo.variables.tensor import TensorVariable

    truth = torch._C.TensorBase.is_cuda

    torch.utils._triton._device_supports_tma = lambda: True  # Dynamo asks before it lets a TensorDescriptor pass

    def is_cuda(tensor):
        return sys._getframe(1).f_code.co_filename == str(script) or truth.__get__(tensor)

    torch.Tensor.is_cuda = property(is_cuda)
    TensorVariable.method_attr_is_cuda = lambda self, tx: ConstantVariable.create(True)


def compile_without_inductor():
    """`fast` compiles: through Dynamo and AOTAutograd, to graphs that run as they stand. Kernels are taken for such."""

    def is_available():
        caller = sys._getframe(1)
        return linecache.getline(caller.f_code.co_filename, caller.f_lineno).startswith("fast = ")

    torch.cuda.is_available = is_available
    torch.compile = partial(torch.compile, backend="aot_eager_decomp_partition")
    torch.utils._triton.has_triton = lambda: True
    torch._meta_registrations.device_hint = lambda tensor: "cuda"  # which layouts an 8-bit product takes
    flex_attention._validate_device = lambda *tensors: None  # it has no backward pass on the CPU


def communicate_with_nobody(ranks: int):
    from torch.testing._internal.distributed.fake_pg import FakeStore

    start = dist.init_process_group
    dist.init_process_group = lambda *_, **__: start("fake", store=FakeStore(), rank=0, world_size=ranks)
    torch.nn.parallel.DistributedDataParallel = Alone


class Alone(torch.nn.Module):
    """In place of DistributedDataParallel, whose reducer wants memory."""

    def __init__(self, module, **options):
        super().__init__()
        self.module, self.require_backward_grad_sync = module, True

    def forward(self, *arguments):
        return self.module(*arguments)

    def no_sync(self):
        return nullcontext()


def read_zeros():
    """What a script reads off a tensor is zero, and true: losses are finite, nothing is clipped."""
    from torch._subclasses.fake_impls import op_implementations_dict

    def read(mode, function, tensor):
        return True if tensor.dtype == torch.bool else 0.0 if tensor.is_floating_point() else 0

    op_implementations_dict[torch.ops.aten._local_scalar_dense.default] = read
    torch.Tensor.__format__ = lambda tensor, form: format(tensor.item(), form)


def convert_parameters(module, function, recurse=True):
    """`Module.to` and the like: PyTorch's own swaps tensors, which those without values do not let it."""
    for child in module.children():
        convert_parameters(child, function)
    with torch.no_grad():
        for name, parameter in module._parameters.items():
            if parameter is not None and (converted := function(parameter)) is not parameter:
                module._parameters[name] = torch.nn.Parameter(converted, parameter.requires_grad)
        module._buffers |= {name: function(buffer) for name, buffer in module._buffers.items() if buffer is not None}
    return module
