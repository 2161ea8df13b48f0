"""Every parameter of every record starts with the distribution that its sheet states.

A wrong start hides well: the run learns, a little worse. So not only mean and deviation are looked at, but what else
tells draws apart: how far the extremes lie, how many values are exactly zero, how finely they are graded.
"""

import math

import initial_weights
import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from harness.archive.find import load

SIZE = {"model_dim": 32, "mlp_dim": 128, "num_heads": 2, "head_dim": 16, "row_tokens": 64, "val_row_tokens": 64}


class Draws(TorchDispatchMode):
    """Notes the dtype of everything that is drawn at random while it is entered."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in function.tags:
            self.dtypes.add(result.dtype)
        return result


@pytest.fixture(scope="module")
def started(folder, definitions_in):
    """The record's model, its settings, and in which dtypes it drew. Narrow, but with the whole vocabulary: the
    extremes of 1.6 million draws tell a lot."""
    record = definitions_in(folder)
    sizes = {name: size for name, size in SIZE.items() if name in record.Settings.__dataclass_fields__}
    settings = record.Settings(**sizes)
    torch.manual_seed(1)
    with Draws() as draws:
        model = record.GPT(settings)
    return model, settings, draws.dtypes


def test_parameters_start_as_the_sheets_say(folder, started):
    number, (model, settings, _) = load(folder).number, started
    faults = [
        f"{name}: {fault}"
        for name, weight in model.named_parameters()
        for fault in deviations(weight.detach(), initial_weights.start_of(number, name), settings)
    ]
    assert not faults


def test_all_is_drawn_in_fp32(started):
    """Where a parameter is bf16 it is rounded after the draw. What a draw in bf16 gives depends on PyTorch's version
    and on the device; one gives nothing beyond 3.33 deviations, and a hundredth of it zeros."""
    assert started[2] == {torch.float32}


def test_a_coarse_draw_is_told_apart():
    """The bounds are narrow enough to see a normal draw made of 8-bit uniform ones (Box and Muller's way)."""
    generator = torch.Generator().manual_seed(0)
    radius, angle = torch.randint(0, 256, (2, 50304, 32), generator=generator) / 256
    coarse = ((-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()).bfloat16()
    faults = list(deviations(coarse, initial_weights.normal(initial_weights.one, torch.bfloat16), None))
    assert len(faults) >= 2 and any("exactly zero" in fault for fault in faults) and "largest" in faults[-2], faults


def deviations(weight, start, settings):
    """What tells a tensor apart from draws of its distribution; each bound is missed by chance once in 10^5 or less."""
    if weight.dtype != start.dtype:
        yield f"{weight.dtype}, not {start.dtype}"
    memory = weight.flatten(1) if start.each else weight.flatten()
    drawn = round(start.share * memory.size(-1))
    weight, rest = memory[..., :drawn], memory[..., drawn:]
    if rest.count_nonzero():
        yield f"{rest.count_nonzero()} values of the part that is zero are not"
    x = weight.flatten().double()
    if start.law == "fixed":
        if sorted(set(x.tolist())) != sorted(start.values):
            yield f"values {sorted(set(x.tolist()))[:9]}, not {start.values}"
        return
    n, scale = x.numel(), start.scale(settings)
    law = stats.norm(scale=scale) if start.law == "normal" else stats.uniform(-scale, 2 * scale)
    kurtosis = float(law.stats(moments="k")) + 3
    if abs(x.mean().item()) > 5 * law.std() / math.sqrt(n):
        yield f"mean {x.mean():.3g}"
    if abs(x.std().item() / law.std() - 1) > 2.5 * math.sqrt((kurtosis - 1) / n):
        yield f"deviation {x.std():.5g}, not {law.std():.5g}"
    largest, low, high = x.abs().max().item(), law.isf(6 / n), min(law.isf(2e-6 / n), scale * 8)
    if not low * (1 - 2**-8) <= largest <= high * (1 + 2**-8):  # a rounding to bf16 may move it by so much
        yield f"largest value {largest:.4g}, not between {low:.4g} and {high:.4g}"
    if (zeros := n - x.count_nonzero().item()) > 3:
        yield f"{zeros} of {n} values are exactly zero"
    if weight.dtype == torch.float32 and (weight == weight.bfloat16()).all().item() != start.rounded:
        yield "not rounded to bf16" if start.rounded else "rounded to bf16"
