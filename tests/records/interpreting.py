"""Triton's interpreter, made to compute what a GPU does.

As it comes with Triton 3.6 it is of no use for these kernels. It rounds to bf16 by cutting off, to 8 bits without a
carry (127 becomes 64) and loses NaN; it multiplies the bit patterns of bf16 matrices; a minimum always propagates NaN,
asked or not; a loop whose bounds are arguments fails under numpy 2.4. Here these are mended, and an address outside the
kernel's arguments is an error, as a GPU's would be if one is lucky.

What it cannot show: what the compiler makes of a kernel (the transposed 8 bits of `test_eight_bits.py`), what does not
fit on the chip (`compiling.py` does), programs that race, approximate division and exponentials.
"""

import os
from types import SimpleNamespace

import numpy as np
import smoke
import torch

NUMBERS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NUMBERS |= {"fp8e4nv": torch.float8_e4m3fn, "fp8e5": torch.float8_e5m2}


def begin():
    """Make this process one whose kernels are interpreted, on memory that is handed out full of NaN."""
    os.environ["TRITON_INTERPRET"] = "1"
    smoke.poison_memory()
    from triton.runtime import interpreter

    interpreter._convert_float = convert
    mend_arithmetic(interpreter)
    mend_loops(interpreter)
    watch_addresses(interpreter)


def convert(values: np.ndarray, source, target, rounding) -> np.ndarray:
    """From bits to bits, to the nearest, as Hopper's instructions do: NaN stays, and 8 bits saturate."""
    numbers = torch.from_numpy(np.ascontiguousarray(values)).view(NUMBERS[source.name]).float()
    wanted = NUMBERS[target.name]
    if wanted.itemsize == 1:
        numbers = numbers.clamp(torch.finfo(wanted).min, torch.finfo(wanted).max)
    return numbers.to(wanted).view(getattr(torch, f"uint{8 * wanted.itemsize}")).numpy()


def mend_arithmetic(interpreter):
    """Products of bf16 matrices; NaN, which only the operations that are asked for it propagate; and the one
    instruction that kernels write out."""
    from triton import language as tl

    def widened(matrix):
        return torch.from_numpy(np.ascontiguousarray(matrix.data)).view(NUMBERS[matrix.dtype.name]).float()

    def dot(self, a, b, total, input_precision, max_num_imprecise_acc):
        return interpreter.TensorHandle((widened(a) @ widened(b)).numpy() + total.data, total.dtype.scalar)

    def clamp(self, x, low, high, propagate):
        clamped = np.fmin(np.fmax(x.data, low.data), high.data)
        if propagate == tl.PropagateNan.ALL:
            clamped = np.where(np.isnan(x.data), x.data, clamped)
        return interpreter.TensorHandle(clamped, x.dtype.scalar)

    def instruction(self, code, constraints, values, types, is_pure, pack):
        assert code == "cvt.rn.bf16x2.f32 $0, $2, $1;", f"not known here: {code}"
        return SimpleNamespace(get_result=lambda _: self.create_fp_trunc(values[0], tl.bfloat16))

    builder = interpreter.InterpreterBuilder
    builder.create_dot, builder.create_clampf, builder.create_inline_asm = dot, clamp, instruction
    builder.create_maxnumf = lambda self, a, b: self.binary_op(a, b, np.fmax)
    builder.create_minnumf = lambda self, a, b: self.binary_op(a, b, np.fmin)


def mend_loops(interpreter):
    """A scalar is an array of one element, which numpy no longer takes for a number."""
    patch = interpreter._patch_lang_tensor

    def patch_and_index(tensor, scope):
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patch_and_index


def watch_addresses(interpreter):
    """Every address that a mask lets through must lie in one of the kernel's tensors."""
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    tensors = []

    def watched(access, pointers_at, mask_at):
        def checked(self, *arguments, **options):
            pointers, mask = arguments[pointers_at], arguments[mask_at]
            addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
            size = pointers.get_element_ty().primitive_bitwidth // 8
            inside = [(start <= addresses) & (addresses + size <= end) for start, end in tensors]
            if not np.any(inside, axis=0).all():
                raise IndexError(f"{access.__name__} outside the kernel's arguments")
            return access(self, *arguments, **options)

        return checked

    def remember(self, arguments, keywords, prepare=executor._init_args_hst):
        bases = [getattr(argument, "base", argument) for argument in arguments]  # of a TensorDescriptor
        tensors[:] = [place(base) for base in bases if isinstance(base, torch.Tensor)]
        return prepare(self, arguments, keywords)

    executor._init_args_hst = remember
    builder.create_masked_load = watched(builder.create_masked_load, 0, 1)
    builder.create_masked_store = watched(builder.create_masked_store, 0, 2)
    builder.create_atomic_rmw = watched(builder.create_atomic_rmw, 1, 3)


def place(tensor: torch.Tensor) -> tuple[int, int]:
    """Addresses from the first to behind the last element, which may not be all in between."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize
