"""Records 25 to 31: each one's technique against its sheet, and what they share against one text."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from references import distance_from_adam, relative_error

STRETCH = ("25", "26", "27", "28", "29", "30", "31")


@pytest.fixture(params=STRETCH)
def record(request, definitions_of):
    record = definitions_of(request.param)
    record.number = request.param
    return record


# What the sheets state, record by record.
PARAMETERS = dict.fromkeys(("25", "26", "27"), 275_742_784) | dict.fromkeys(("28", "29"), 275_743_576)
PARAMETERS |= dict.fromkeys(("30", "31"), 271_024_984)
WIDER_WINDOWS = {
    "25": [132, 263, 394, 525, 656, 787, 918, 1049, 1181, 1312, 1443, 1574, 1705],
    "26": [130, 260, 389, 519, 649, 778, 908, 1038, 1167, 1297, 1426, 1556, 1686],
    "28": [126, 252, 377, 503, 628, 754, 879, 1005, 1131, 1256, 1382, 1507, 1633],
    "29": [557, 1114],
    "30": [569, 1138],
    "31": [557, 1114],
}
WIDER_WINDOWS["27"] = WIDER_WINDOWS["26"]
FIRST_DECAYED = {"25": 1063, "26": 963, "27": 963, "28": 933, "29": 919, "30": 938, "31": 835}
LAST_MULTIPLIER = {"25": 0.1013, "26": 0.1011, "27": 0.1011, "28": 0.1012, "29": 0.1012, "30": 0.1012, "31": 0.1011}


def test_parameters_are_those_of_the_sheet(record):
    with torch.device("meta"):
        model = record.GPT(record.Settings(row_tokens=128, val_row_tokens=128))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[record.number]
    assert model.scalars.numel() == 64


def test_schedules_hit_the_sheet_s_values(record):
    steps = record.settings.num_iterations
    windows = [record.window_blocks(step) for step in range(steps + 1)]
    assert [step for step in range(1, steps + 1) if windows[step] > windows[step - 1]] == WIDER_WINDOWS[record.number]
    assert (windows[0], windows[-1]) == ((1, 14) if record.number < "29" else (3, 11))
    first = FIRST_DECAYED[record.number]
    assert record.learning_rate_multiplier(first - 1) == 1.0 > record.learning_rate_multiplier(first + 1)
    assert record.learning_rate_multiplier(steps - 1) == pytest.approx(LAST_MULTIPLIER[record.number], abs=6e-5)
    assert [record.muon_momentum(step) for step in (0, 150, 300, steps - 1)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


def test_initial_distributions_are_those_of_the_sheet(record):
    model = record.GPT(record.Settings(vocab_size=128, num_layers=2, row_tokens=128, val_row_tokens=128))
    attention, mlp = model.blocks[1].attention, model.blocks[1].mlp
    if record.number < "27":
        uniform, zero = [attention.query_key_value, mlp.up], [attention.output, mlp.down]
    else:
        uniform, zero = [attention.qkvo[:3], mlp.up], [attention.qkvo[3], mlp.down]
    zero += [attention.gate] if record.number >= "28" else []
    for weight in uniform:
        assert weight.dtype == torch.float32
        assert weight.abs().max().item() == pytest.approx(1 / 32, rel=1e-3)
        assert weight.std().item() == pytest.approx(0.5 / math.sqrt(768), rel=1e-2)
    assert all(weight.dtype == torch.float32 and not weight.any() for weight in [*zero, model.lm_head])
    for table in (model.embedding, *model.value_tables):
        assert table.dtype == torch.bfloat16 and table.float().std().item() == pytest.approx(1, abs=0.02)


def test_newton_schulz_nears_the_polar_factor_of_an_svd(record):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(3, 24, 96), full_matrices=False)
    matrices = u * s.clamp(min=0.1 * s.max()).unsqueeze(-2) @ v  # no singular value too small to be lifted
    result = record.newton_schulz(matrices).float()
    singular_values = torch.linalg.svdvals(result)
    assert singular_values.min() > 0.6 and singular_values.max() < 1.25
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ v).flatten(), 0) > 0.97
    assert record.newton_schulz(torch.zeros(1, 6, 12)).abs().max() == 0


def test_muon_moves_each_matrix_along_its_polar_factor(record, one_rank):
    """One step from rest, a batch of square matrices and wide ones; a tall one went twice as far as long as there were
    any."""
    shapes, factors = [(3, 16, 16), (16, 64)], [1, 1]
    if record.number < "27":
        shapes, factors = [*shapes, (64, 16)], [*factors, 2]
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes for _ in range(2)]
    before = [parameter.detach().clone() for parameter in parameters]
    muon = record.Muon(parameters, learning_rate=0.5, gradient_scale=0.25)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    gradients = [parameter.grad.clone() for parameter in parameters]
    muon.step(multiplier=0.1, momentum=0.9)
    for parameter, start, gradient, factor in zip(parameters, before, gradients, np.repeat(factors, 2)):
        matrices = gradient if gradient.dim() == 3 else gradient[None]
        expected = -0.05 * float(factor) * record.newton_schulz(matrices).float().view_as(gradient)
        assert parameter.grad is None
        assert relative_error(parameter.detach() - start, expected) < 0.08


def test_adam_is_adam(record, one_rank):
    assert distance_from_adam(record, "cpu", 0.8) < 1e-4


# --------------------------------------------------------------------------------------------------
# 26, 29: which tokens a step sees
# --------------------------------------------------------------------------------------------------


def write_shards(folder: Path, counts):
    """Training shards with documents of 5 to 120 tokens, in which no two tokens of a shard's document body agree."""
    generator, shards = np.random.default_rng(1), []
    for number, count in enumerate(counts):
        tokens = (np.arange(count) % 50000).astype("<u2")
        tokens[np.cumsum(generator.integers(5, 120, count // 40))[:-1].clip(max=count - 1)] = 50256
        header = np.zeros(256, dtype="<i4")
        header[:3] = 20240520, 1, count
        (folder / f"fineweb_train_{number:06d}.bin").write_bytes(header.tobytes() + tokens.tobytes())
        shards.append(tokens.astype(np.int64))
    return shards


def steps_of(record, world_size, count):
    """The rows of the first steps, as all ranks together see them, in the order of 8 ranks."""
    record.device, record.world_size = torch.device("cpu"), world_size
    steps = [[] for _ in range(count)]
    ranks = []
    for rank in range(world_size):
        record.rank = rank
        batches = record.train_batches()
        ranks.append([next(batches) for _ in range(count)])
    for step in range(count):
        for i in range(8 // world_size):
            steps[step] += [ranks[rank][step][i] for rank in range(world_size)]
    return steps


@pytest.mark.parametrize("number", ["26", "28"])
def test_rows_start_with_documents(definitions_of, tmp_path, number):
    """The sheet's search, boundary by boundary, through two shards; the same rows at any number of ranks."""
    record = definitions_of(number)
    size, reach = 100, 3 * 8 * 100
    record.settings = record.Settings(data_dir=str(tmp_path), row_tokens=size, search_steps=3)
    expected = []
    for tokens in write_shards(tmp_path, [9000, 8000]):
        position = 0
        while position + reach + 1 < len(tokens):
            boundaries = [i for i in range(position, position + reach) if tokens[i] == 50256]
            start, rows = boundaries[0], []
            for end in boundaries[1:]:
                if end - start >= size and len(rows) < 8:
                    rows.append(tokens[start : start + size + 1])
                    start = position = end
            assert len(rows) == 8
            expected.append(rows)
    for world_size in (1, 2, 4, 8):
        for rows, wanted in zip(steps_of(record, world_size, len(expected)), expected, strict=True):
            for (tokens, targets), row in zip(rows, wanted, strict=True):
                assert np.array_equal(tokens, row[:-1]) and np.array_equal(targets, row[1:])
                assert tokens[0] == 50256


@pytest.mark.parametrize("number", ["29", "31"])
def test_rows_are_packed_from_documents_cut_short(definitions_of, tmp_path, number):
    """The sheet's packer, token by token, through two shards and on into the first again."""
    record = definitions_of(number)
    size, longest = 100, 60
    record.settings = record.Settings(data_dir=str(tmp_path), row_tokens=size, document_tokens=longest)
    shards, expected = write_shards(tmp_path, [5000, 4000]), []
    for tokens in [*shards, shards[0]]:
        starts = np.flatnonzero(tokens == 50256).tolist()
        documents = [tokens[a:b][:longest] for a, b in zip(starts, [*starts[1:], len(tokens)])]
        while True:
            rows = []
            while documents and len(rows) < 8:
                row, ends = [], [0]
                while documents and len(row) < size + 1:
                    row += documents.pop(0)[: size + 1 - len(row)].tolist()
                    ends.append(min(len(row), size))
                if len(row) == size + 1:
                    rows.append((row, ends))
            if len(rows) < 8:
                break
            expected.append(rows)
    for world_size in (1, 2, 8):
        for rows, wanted in zip(steps_of(record, world_size, len(expected)), expected, strict=True):
            for (tokens, targets, ends, bound), (row, row_ends) in zip(rows, wanted, strict=True):
                assert tokens.tolist() == row[:-1] and targets.tolist() == row[1:] and bound == longest
                assert ends.dtype == torch.int32 and len(ends) == 128
                assert ends.tolist() == row_ends + [size] * (128 - len(row_ends))
                # The last token of a document is to predict the next one's separator, also where it was cut.
                assert (targets[ends[1 : len(row_ends) - 1].long() - 1] == 50256).all()


# --------------------------------------------------------------------------------------------------
# 28, 30, 31: the model
# --------------------------------------------------------------------------------------------------


def small(record, **settings):
    return record.Settings(
        vocab_size=64, model_dim=32, num_heads=2, head_dim=16, mlp_dim=64, row_tokens=64, val_row_tokens=64, **settings
    )


def test_gates_start_half_open_and_read_twelve_channels(definitions_of):
    """28 against 27 with the same matrices; then one head's gate, driven by one channel."""
    records = {number: definitions_of(number) for number in ("27", "28")}
    torch.manual_seed(0)
    x, outputs = torch.randn(64, 32).bfloat16(), {}
    attentions = {number: record.Attention(small(record)) for number, record in records.items()}
    with torch.no_grad():
        attentions["28"].qkvo.copy_(attentions["27"].qkvo.normal_(std=0.1))
        for number, record in records.items():
            mask = record.dense_mask(torch.zeros(64, dtype=torch.int32), torch.tensor(4), 16)
            inputs = (None, torch.tensor([0.5, 0.5]), record.Rotary(16, 64, 1024), mask)
            outputs[number] = attentions[number](x, *inputs)
        assert torch.equal(outputs["28"], 0.5 * outputs["27"])
        attentions["28"].gate[0, 11] = -1000.0
        x[:, 11] = 1.0
        attentions["28"].qkvo[3, :, 16:] = 0  # of the output, the first head's share alone
        assert attentions["28"](x, *inputs).abs().max() == 0


def test_the_first_block_alone_has_no_mlp(definitions_of):
    model = definitions_of("30").GPT(small(definitions_of("30")))
    assert [block.mlp is None for block in model.blocks] == [True] + [False] * 11
    assert [block.attention is None for block in model.blocks] == [layer == 7 for layer in range(12)]


def test_yarn_rescales_as_the_sheet_says(definitions_of):
    """Sheet 31's check values: frequencies and softmax scale at windows of 3, 7, 11 and 13 blocks."""
    rotary = definitions_of("31").Rotary(128, 64, base=1024, attention_scale=0.1, window_block=128)
    channels, windows = [0, 2, 3, 4, 6, 8, 16, 31], [3, 7, 11, 13]
    frequencies = {
        3: [1, 0.639421, 0.511306, 0.408860, 0.261434, 0.167166, 0.0279445, 0.000976562],
        7: [1, 0.639421, 0.504225, 0.356011, 0.184221, 0.100042, 0.0123408, 0.000418527],
        11: [1, 0.639421, 0.504225, 0.356011, 0.171840, 0.0792315, 0.00796326, 0.000266335],
        13: [1, 0.639421, 0.504225, 0.356011, 0.171840, 0.0736302, 0.00676914, 0.000225361],
    }
    scales = {3: 0.1, 7: 0.116946, 11: 0.127518, 13: 0.131778}
    first = rotary.cos.clone()
    for i, window in enumerate(windows):
        if i:
            rotary.extend(windows[i - 1], window)
        assert rotary.frequencies[channels].tolist() == pytest.approx(frequencies[window], rel=2e-5)
        assert not rotary.frequencies[32:].any()
        assert rotary.attention_scale == pytest.approx(scales[window], abs=1e-6)
        assert rotary.cos[40, 4].item() == pytest.approx(math.cos(40 * frequencies[window][3]), abs=1e-4)
    rotary.reset()
    assert torch.equal(rotary.cos, first) and rotary.attention_scale == 0.1


# --------------------------------------------------------------------------------------------------
# What is shared
# --------------------------------------------------------------------------------------------------

# The first record of the stretch in which a definition has the text it has in 40, where it is tested on a GPU.
SHARED = {
    "scaled_matmul": "25", "capped_cross_entropy": "25", "capped_cross_entropy_gradient": "25",
    "cross_entropy_kernel": "25", "cross_entropy_gradient_kernel": "25", "adam_update": "25", "rms_norm": "25",
    "symmetric_matmul_kernel": "27", "symmetric_matmul": "27", "uniform_": "27", "MLP": "27",
    "attend": "29", "attention_backend": "29", "pack_rows": "29", "as_inputs": "29", "document_slots": "29",
    "val_batches": "29",
}  # fmt: skip


def texts(record):
    """The source of every function and class of a script, by name, its decorators included."""
    source = Path(record.__file__).read_text(encoding="utf-8")
    lines = source.splitlines()
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    first = {node: min([node.lineno, *(d.lineno for d in node.decorator_list)]) for node in nodes}
    return {node.name: lines[first[node] - 1 : node.end_lineno] for node in nodes}


def test_what_no_technique_touches_has_one_text(definitions_of):
    expected = texts(definitions_of("40"))
    for number in STRETCH:
        found = texts(definitions_of(number))
        for name, since in SHARED.items():
            assert number < since or found[name] == expected[name], f"{name} of {number} is not that of 40"
