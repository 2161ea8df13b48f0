"""Numbers of 8 bits: rounded and stored in both directions as their definition says, and never transposed.

A tile of 8-bit numbers that is stored as it is and transposed comes out of Triton 3.6 with a quarter of its values
wrong, NaN among them, also in the kernels that the compiler writes; record 40 went to NaN by it. NVIDIA's assembler
loses them (`machine_code.py`). Here the text is held to the rule, and the kernels to their definitions wherever there
is a GPU.
"""

import re
from pathlib import Path

import pytest
import torch
from fp8_head import log_sums, logit_gradient

SCRIPTS = sorted((Path(__file__).parents[2] / "records").glob("*/train.py"))
EIGHT_BITS = [script.parent for script in SCRIPTS if "float8" in script.read_text(encoding="utf-8")]
KERNEL = re.compile(r"^    @triton\.jit\n    def (\w+)\((?:.*\n)+?(?=^    @|^\S)", re.MULTILINE)
TRANSPOSED = re.compile(r"\b(\w+)\.(?:T|mT|permute\(|trans\()")
MASKS = {"inside", "mask"}  # one bit to an element, moved with the addresses
SIXTEEN_BITS = {"right", "result"}  # tiles of the symmetric matmul
LEFT_TO_THE_COMPILER = re.compile(r"\w*8\w*\.m?T\.contiguous\(\)")


@pytest.fixture(params=EIGHT_BITS, ids=lambda folder: folder.name)
def eight_bits(request):
    """Each record with numbers of 8 bits."""
    return request.param


@pytest.fixture
def record(eight_bits, definitions_in):
    return definitions_in(eight_bits)


def transposed_tiles(source: str) -> set[str]:
    """Names of what the kernels of a script transpose, masks and 16-bit tiles left out."""
    kernels = [re.sub(r'""".*?"""', "", match[0], flags=re.DOTALL) for match in KERNEL.finditer(source)]
    assert kernels, "no kernel was found: has their form changed?"
    return {name for kernel in kernels for name in TRANSPOSED.findall(kernel)} - MASKS - SIXTEEN_BITS


def test_no_kernel_transposes_8_bits(eight_bits):
    source = (eight_bits / "train.py").read_text(encoding="utf-8")
    assert transposed_tiles(source) == set()
    assert LEFT_TO_THE_COMPILER.findall(re.sub("#.*", "", source)) == []


def test_the_rule_is_seen_to_be_broken(eight_bits):
    """Planted: the store that went wrong. Later scripts round four rows together for it."""
    source = (eight_bits / "train.py").read_text(encoding="utf-8")
    broken = re.sub(r"\b(tile|together)(, mask=inside\.T|\.to\(dtype\))", r"\1.T\2", source)
    assert broken != source and transposed_tiles(broken) in ({"tile"}, {"together"})
    assert LEFT_TO_THE_COMPILER.findall("x = scaled_matmul(x8.T.contiguous(), columns.T)") == ["x8.T.contiguous()"]


@pytest.mark.parametrize("shape", [(32768, 768), (50304, 768), (100, 77)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_quantised_is_its_definition_in_both_directions(record, shape, dtype, device):
    rows_of = min(shape[0], 256) if device.type == "cpu" else shape[0]
    torch.manual_seed(0)
    x = 5 * torch.randn(rows_of, shape[1], device=device, dtype=dtype)
    x[3, 5], x[7, 11] = 1e4, float("nan")  # beyond the range, and lost
    rows, columns = record.quantised(x, 24 / 448)
    expected = (x.float() / (24 / 448)).clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    assert torch.equal(rows.view(torch.uint8), expected)
    assert torch.equal(columns.view(torch.uint8), expected.T)
    assert rows.float().isnan().sum() == columns.float().isnan().sum() == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_head_s_gradient_is_the_same_in_both_directions(record):
    """At the record's size, on memory that holds NaN before; the values against the plain definition."""
    z = torch.randn(4096, 50304, device="cuda", dtype=torch.bfloat16)
    targets = torch.randint(0, 50257, (4096,), device="cuda")
    poison = torch.full((2**28,), float("nan"), device="cuda")
    del poison
    sums = log_sums(record, z, targets)
    rows, columns = logit_gradient(record, z, targets, sums)
    assert torch.equal(columns.view(torch.uint8), rows.view(torch.uint8).T)
    plain, _ = logit_gradient(record, z[:64].cpu(), targets[:64].cpu(), sums[:64].cpu())
    off = (rows[:64].cpu().view(torch.uint8) != plain.view(torch.uint8)).float().mean()
    assert off < 1e-4  # exp differs in its last bit, and few values stand on the border between two of 8 bits
