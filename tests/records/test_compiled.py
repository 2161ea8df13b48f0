"""Every Triton kernel of the archive compiles for an H100, as the record launches it there, its tiles fit on the chip,
and the assembler loses none of its numbers of 8 bits. No GPU is needed for that, and no memory: the tensors have the
record's sizes and hold nothing."""

import re

import compiling
import kernels
import pytest
import torch

TOKENS = 32768
LAUNCHING = ("quantised", "capped_cross_entropy", "capped_cross_entropy_gradient", "symmetric_matmul")
LAUNCHING += ("quantise_columns", "linear_relu_square", "linear_relu_square8", "linear_relu_square_gradient")
LAUNCHING += ("add_rows",)


@pytest.mark.defines("quantised")
@pytest.mark.same_kernels(*LAUNCHING)
def test_kernels_compile_for_an_h100(folder, definitions_in, compiled):
    record = definitions_in(folder)
    for name, offered in inputs(record.settings).items():
        if function := getattr(record, name, None):
            compiled(kernels.launch, folder, name, *kernels.arguments(function, offered))
    launches = compiled(compiling.take_compiled)
    source = (folder / "train.py").read_text(encoding="utf-8")
    assert {launch.name for launch in launches} == set(re.findall(r"def (\w+_kernel)\(", source))
    assert max(launch.shared_memory for launch in launches) <= compiling.SHARED_MEMORY
    assert [launch for launch in launches if launch.lost] == []
    for tuned in filter(lambda value: hasattr(value, "configs"), vars(record).values()):
        tried = [launch.options for launch in launches if launch.name == tuned.base_fn.__name__]
        for tile in tuned.configs:
            assert any(tile.all_kwargs().items() <= options.items() for options in tried), f"{tile} does not compile"


def test_a_lost_number_is_seen(compiled):
    """Planted: the kernel by which it was found."""
    import planted_kernel

    compiled(planted_kernel.launch, bf16(1024, 1024), fp8(1024, 1024), fp8(1024, 1024))
    [launch] = compiled(compiling.take_compiled)
    assert launch.lost, "with this assembler, may tiles of 8 bits be transposed again?"


def inputs(settings) -> dict[str, dict]:
    """For each function that launches a kernel what it may ask for, by name, in a record's sizes."""
    classes, dim, hidden = settings.vocab_size, settings.model_dim, 4 * settings.model_dim
    loss = {"z": bf16(TOKENS, classes), "targets": empty(torch.int64, TOKENS), "log_sums": fp32(TOKENS)}
    loss |= {"classes": empty(torch.int64, 4, TOKENS), "shares": fp32(4, TOKENS), "totals": fp32(TOKENS)}
    loss |= {"target_weights": fp32(3), "cap": 30.0, "shift": 5.0, "width": 7.5}
    gram = bf16(8, dim, dim)
    mlp = {"x": bf16(TOKENS, dim), "up": bf16(hidden, dim), "z": bf16(TOKENS, hidden), "post": bf16(TOKENS, hidden)}
    mlp |= {"x8": fp8(TOKENS, dim), "up8": fp8(hidden, dim), "scale": fp32(), "post_scale": fp32()}
    mlp |= {"gradient": bf16(TOKENS, dim), "down": bf16(hidden, dim)}
    added = {"sums": fp32(classes, dim), "rows": empty(torch.int64, TOKENS), "gradients": bf16(TOKENS, dim)}
    return {
        "add_rows": added,
        "quantised": {"x": bf16(classes, dim), "scale": 2.0**-9},
        "quantise_columns": {"x": bf16(11, hidden, dim), "scales": fp32(11), "out": fp8(11, dim, hidden)},
        "capped_cross_entropy": loss,
        "capped_cross_entropy_gradient": loss,
        "linear_relu_square": mlp,
        "linear_relu_square8": mlp,
        "linear_relu_square_gradient": mlp,
        "symmetric_matmul": {"x": gram, "out": gram, "alpha": 1.0, "beta": 2.0},
    }


def empty(dtype, *shape):
    return torch.empty(shape, dtype=dtype, device="meta")


def fp32(*shape):
    return empty(torch.float32, *shape)


def bf16(*shape):
    return empty(torch.bfloat16, *shape)


def fp8(*shape):
    return empty(torch.float8_e4m3fn, *shape)
