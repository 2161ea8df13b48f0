"""The kernels that 61 and 89 have beside those of the archive, in Triton's interpreter, against plain definitions."""

import kernels
import pytest
import torch
import torch.nn.functional as F

SIZES = [(3, 5, 16), (128, 256, 128), (130, 300, 208), (1100, 24, 16)]  # rows, hidden units, depth


def bits(tensor):
    return tensor.view(torch.uint8)


def near(result, expected):
    """Almost all of 8 or 16 bits alike; where two sums were rounded apart, one step."""
    assert (bits(result) != bits(expected)).float().mean() < 0.01
    torch.testing.assert_close(result.float(), expected.float(), rtol=0.13, atol=1e-2)


@pytest.fixture
def inputs(request):
    torch.manual_seed(0)
    size, hidden, depth = request.param
    return torch.randn(size, depth).bfloat16(), (torch.randn(hidden, depth) / depth**0.5).bfloat16()


@pytest.mark.parametrize("inputs", SIZES, indirect=True)
def test_61_squares_in_the_product(folder_of, definitions_of, interpreted, inputs):
    """Every configuration of the autotuner; both results, then the gradient from another product."""
    results = interpreted(kernels.launch_every_tile, folder_of("61"), "linear_relu_square", *inputs)
    z, square = definitions_of("61").linear_relu_square(*inputs)
    assert len(results) == len(definitions_of("61").TILES)
    for before, after in results:
        near(before, z)
        near(after, square)
    results = interpreted(kernels.launch_every_tile, folder_of("61"), "linear_relu_square_gradient", *inputs, z.flip(1))
    expected = (inputs[0] @ inputs[1].T).float() * 2 * F.relu(z.flip(1).float())
    for gradient in results:
        near(gradient, expected.bfloat16())


@pytest.mark.parametrize("inputs", SIZES, indirect=True)
def test_89_squares_in_the_product_of_8_bits(folder_of, definitions_of, interpreted, inputs):
    """And its largest; with a scale of the squares that clips some of them, and a number that is not one."""
    x8, up8 = ((50 * x.float()).to(torch.float8_e4m3fn) for x in inputs)
    arguments = x8, up8, torch.tensor(1 / 2500), torch.tensor(2 / 448)
    results = interpreted(kernels.launch, folder_of("89"), "linear_relu_square8", *arguments)
    expected = definitions_of("89").linear_relu_square8(*arguments)
    for result, reference in zip(results, expected, strict=True):
        near(result, reference)
    assert results[2] == results[0].max()

    x8[-1, -1] = torch.nan
    post, post8, _ = interpreted(kernels.launch, folder_of("89"), "linear_relu_square8", *arguments)
    assert post[-1].isnan().all() and post8[-1].float().isnan().all() and post[:-1].isfinite().all()


@pytest.mark.parametrize("inputs", SIZES, indirect=True)
def test_89_differentiates_the_square(folder_of, definitions_of, interpreted, inputs):
    post = torch.randn(len(inputs[0]), len(inputs[1])).bfloat16().square()
    gradient = interpreted(kernels.launch, folder_of("89"), "linear_relu_square_gradient", *inputs, post)
    near(gradient, definitions_of("89").linear_relu_square_gradient(*inputs, post))


@pytest.mark.parametrize("rows, columns", [(3, 5), (64, 128), (200, 136)])
def test_89_quantises_down(folder_of, definitions_of, interpreted, rows, columns):
    """Matrices of a bank, each with its scale, which are not contiguous together."""
    bank, scales = torch.randn(3, 2, rows, columns).bfloat16(), torch.tensor([0.01, 0.004, 0.02])
    out, expected = torch.full((2, 3, columns, rows), torch.nan).to(torch.float8_e4m3fn)
    *_, result = interpreted(kernels.launch, folder_of("89"), "quantise_columns", bank[:, 1], scales, out)
    definitions_of("89").quantise_columns(bank[:, 1], scales, expected)
    assert torch.equal(bits(result), bits(expected))
