"""Records 13 to 18 against their sheets: windows, masks, value embeddings, rotary positions, Muon, parameters."""

import math

import pytest
import torch

ALL = ["13", "14", "15", "16", "17", "18"]
DOCUMENT_START = 50256
SMALL = {"num_layers": 12, "model_dim": 32, "num_heads": 2, "mlp_dim": 64, "row_tokens": 64}


@pytest.fixture
def record(request, definitions_of):
    return definitions_of(request.param)


def of(*numbers):
    """Run a test for these records."""
    return pytest.mark.parametrize("record", numbers, indirect=True)


def documents(length, starts):
    tokens = torch.zeros(length, dtype=torch.int64)
    tokens[starts] = DOCUMENT_START
    return (tokens == DOCUMENT_START).cumsum(0, dtype=torch.int32)


# The first step of each window after the first, from the sheets.
GROWS = {
    "13": "65 130 195 260 325 389 454 519 584 649 713 778 843 908 973 1038 1102 1167 1232 1297 1362 1426 1491 1556 "
    "1621 1686 1750",
    "14": "57 114 170 227 284 340 397 454 510 567 624 680 737 794 850 907 964 1020 1077 1134 1190 1247 1304 1360 1417 "
    "1474 1530",
    "15": "55 110 165 220 275 329 384 439 494 549 603 658 713 768 823 878 932 987 1042 1097 1152 1206 1261 1316 1371 "
    "1426 1480",
    "16": "110 220 329 439 549 658 768 878 987 1097 1206 1316 1426",
    "17": "111 221 332 442 552 663 773 883 994 1104 1215 1325 1435",
    "18": "103 206 309 412 515 618 721 824 927 1030 1133 1236 1339",
}


@pytest.mark.parametrize("number", ALL)
def test_the_window_grows_at_the_sheet_s_steps(number, definitions_of):
    record = definitions_of(number)
    window, first = (record.attention_window, 64) if number < "16" else (record.window_blocks, 1)
    windows = [window(step) for step in range(record.settings.num_iterations + 1)]
    grows = [step for step in range(1, len(windows)) if windows[step] != windows[step - 1]]
    assert grows == [int(step) for step in GROWS[number].split()]
    assert windows == [first * (1 + sum(step >= grown for grown in grows)) for step in range(len(windows))]


def test_15_and_16_visit_the_same_blocks_at_every_step(definitions_of):
    tokens, blocks = definitions_of("15").attention_window, definitions_of("16").window_blocks
    assert all(math.ceil(tokens(step) / 128) == blocks(step) for step in range(1481))


# Learning rate: the last step at the peak, the factor at the last step; momentum reaches its end at step 300 in all.
SCHEDULES = {
    "13": (1110, 1 / 640), "14": (930, 1 / 600), "15": (880, 1 / 600),
    "16": (880, 1 / 600), "17": (890, 1 / 600), "18": (834, 1 / 556),
}  # fmt: skip


@pytest.mark.parametrize("number", ALL)
def test_schedules_hit_the_sheet_s_values(number, definitions_of):
    record = definitions_of(number)
    peak, last = SCHEDULES[number]
    steps = record.settings.num_iterations
    assert record.learning_rate_multiplier(peak) == 1.0 > record.learning_rate_multiplier(peak + 1)
    assert record.learning_rate_multiplier(steps - 1) == pytest.approx(last)
    assert [record.muon_momentum(step) for step in (0, 150, 300, steps)] == pytest.approx([0.85, 0.9, 0.95, 0.95])


def sees(number, query, key, document, window, block):
    """Whether a query attends to a key, from the sheets; the window in tokens up to 15, in blocks from 16 on."""
    near = query - key < window if number < "16" else query // block - key // block < window
    if number == "15":  # a block of keys is visited only within the window rounded up to blocks
        near = near and query // block - key // block < math.ceil(window / block)
    return key <= query and document[query] == document[key] and near


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("window", [1, 2, 5, 7, 16, 64])
def test_masks_are_those_of_the_sheets(number, window, definitions_of, monkeypatch):
    """Dense, token by token; then the tiles: full ones are those without a forbidden pair, partial ones have both."""
    record, block, n = definitions_of(number), 8, 64
    document = documents(n, [3, 8, 17, 39, 40])
    if number < "15":
        monkeypatch.setattr(record, "TILE", block)
    sizes = () if number < "15" else (block,)
    dense = record.dense_mask(document, torch.tensor(window, dtype=torch.int32), *sizes)
    expected = [[sees(number, query, key, document, window, block) for key in range(n)] for query in range(n)]
    assert torch.equal(dense, torch.tensor(expected))

    mask = record.block_mask(document, torch.tensor(window, dtype=torch.int32), *sizes)
    pairs = dense.view(n // block, block, n // block, block).transpose(1, 2).flatten(2)
    for counts, lists, tiles in (
        (mask.full_kv_num_blocks, mask.full_kv_indices, pairs.all(-1)),
        (mask.kv_num_blocks, mask.kv_indices, pairs.any(-1) & ~pairs.all(-1)),
    ):
        assert lists.dtype == counts.dtype == torch.int32
        for row in range(n // block):
            assert lists[0, 0, row, : counts[0, 0, row]].tolist() == tiles[row].nonzero().flatten().tolist()


def model_inputs(number, tokens):
    ids = tokens if number < "15" else tokens.int()
    return ids, tokens, torch.tensor(2 if number >= "16" else 16, dtype=torch.int32)


# Layer by layer: which value embedding, by its column of the wide table or by its own table.
VALUE_EMBEDDINGS = {
    "14": list(range(12)),
    "15": [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0],
    "16": [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0],
    "17": [0, 1, 2, None, None, None, None, "no attention", None, 0, 1, 2],
    "18": [0, 1, 2, None, None, None, None, "no attention", None, 0, 1, 2],
}


@pytest.mark.parametrize("number", VALUE_EMBEDDINGS)
def test_each_layer_gets_its_value_embedding(number, definitions_of):
    record = definitions_of(number)
    blocks = {} if number == "14" else {"window_block": 16}
    model, seen = record.GPT(record.Settings(**SMALL, **blocks)), {}
    tokens = torch.arange(64)
    for layer, block in enumerate(model.blocks):
        if block.attention is not None:
            block.attention.register_forward_pre_hook(lambda _, inputs, layer=layer: seen.update({layer: inputs[1]}))
    model(*model_inputs(number, tokens))
    tables = model.value_table.split(32, dim=1) if number < "16" else list(model.value_tables)
    for layer, table in enumerate(VALUE_EMBEDDINGS[number]):
        if isinstance(table, int):
            assert torch.equal(seen[layer], tables[table][tokens])
        else:
            assert seen.get(layer, "no attention") == table


@of("14", "15", "18")
def test_values_are_mixed_with_their_embedding(record):
    """With one token a query sees only itself, so attention's result is the mixed value."""
    settings = record.Settings(**SMALL)
    attention, rotary = record.Attention(settings), record.Rotary(16, 1, 10)
    x, embedding = torch.randn(2, 1, 32).bfloat16().unbind()
    attention.output.weight.data.copy_(torch.eye(32))
    mix = torch.tensor([0.75, 0.25] if attention.value_mix.numel() == 2 else [0.25])
    attention.value_mix.data.copy_(mix)
    result = attention(x, embedding, rotary, torch.ones(1, 1, dtype=torch.bool))
    torch.testing.assert_close(result, 0.75 * attention.value(x) + 0.25 * embedding, rtol=2e-2, atol=1e-2)


@of("14", "15", "16")
def test_rotary_frequencies_are_rounded_to_bf16(record):
    rotary = record.Rotary(128, 3000, 10_000)
    exact = 10_000 ** -(torch.arange(64) / 64)
    angles = 2999 * exact.bfloat16().double()
    torch.testing.assert_close(rotary.cos[2999].double(), angles.cos(), rtol=0, atol=4e-3)
    assert (rotary.cos[2999].double() - (2999 * exact.double()).cos()).abs().max() > 0.5
    assert rotary.cos.dtype == torch.bfloat16


@of("17", "18")
def test_rotary_turns_half_of_the_pairs(record):
    """32 frequencies from 1 to 1/1024, 32 of zero; the rest stays as it is, and lengths are kept."""
    rotary = record.Rotary(128, 3000, 1024)
    angles = 2999 * 1024.0 ** -(torch.arange(32, dtype=torch.float64) / 31)
    torch.testing.assert_close(rotary.cos[2999, :32].double(), angles.cos(), rtol=0, atol=4e-3)
    torch.testing.assert_close(rotary.sin[2999, :32].double(), angles.sin(), rtol=0, atol=4e-3)
    x = torch.randn(3000, 2, 128)
    turned = rotary(x)
    assert torch.equal(turned[..., 32:64], x[..., 32:64]) and torch.equal(turned[..., 96:], x[..., 96:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=5e-3, atol=0)
    expected = x[2999, :, :32] * angles.cos() + x[2999, :, 64:96] * angles.sin()
    torch.testing.assert_close(turned[2999, :, :32].double(), expected, rtol=0, atol=3e-2)


# Parameters and scalars, and how many bytes the scalars have each; tables and the head make most of them.
PARAMETERS = {
    "13": (162_201_642, 42, 2), "14": (625_803_306, 42, 2), "15": (394_002_486, 54, 2),
    "16": (394_002_486, 54, 2), "17": (275_598_388, 52, 2), "18": (275_742_772, 52, 4),
}  # fmt: skip


@pytest.mark.parametrize("number", ALL)
def test_parameters_are_those_of_the_sheet(number, definitions_of):
    record, (total, scalars, size) = definitions_of(number), PARAMETERS[number]
    with torch.device("meta"):
        model = record.GPT(record.Settings(row_tokens=128))
    assert sum(parameter.numel() for parameter in model.parameters()) == total
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    assert sum(vector.numel() for vector in vectors) == scalars
    assert {vector.element_size() for vector in vectors} == {size}


@pytest.mark.parametrize("number", ALL)
def test_weights_start_as_the_sheet_says(number, definitions_of):
    """Uniform in ±1/sqrt(inputs), rounded to bf16 up to 17; tables standard normal in bf16; zero where it adds."""
    record = definitions_of(number)
    model = record.GPT(record.Settings(**SMALL))
    for weight in (model.blocks[3].attention.query.weight, model.blocks[3].mlp.up.weight):
        assert weight.dtype == torch.float32
        assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 32), rel=0.1)
        assert weight.abs().max() <= torch.tensor(1 / math.sqrt(32)).bfloat16()
        assert torch.equal(weight, weight.bfloat16().float()) == (number < "18")
    for weight in (model.lm_head, model.blocks[3].attention.output, model.blocks[3].mlp.down):
        assert weight.weight.abs().max() == 0
    tables = [table for name, table in model.named_parameters() if "embedding" in name or "value_table" in name]
    assert {table.dtype for table in tables} == {torch.bfloat16}
    assert all(table.float().std().item() == pytest.approx(1, rel=0.01) for table in tables)


@pytest.mark.parametrize("number", ALL)
def test_logits_are_capped(number, definitions_of, monkeypatch):
    """The loss from the final stream, spelled out: cap * tanh(z / cap) with 15 in record 18, 30 before."""
    record = definitions_of(number)
    model, tokens = record.GPT(record.Settings(**SMALL)), torch.arange(64)
    x, cap = torch.randn(64, 32).bfloat16(), 15 if number == "18" else 30
    monkeypatch.setattr(model, "hidden", lambda *_: (x, []))
    torch.nn.init.normal_(model.lm_head.weight, std=8)
    logits = cap * torch.tanh((x @ model.lm_head.weight.T.bfloat16()).double() / cap)
    expected = torch.nn.functional.cross_entropy(logits, tokens)
    assert model(*model_inputs(number, tokens)).item() == pytest.approx(expected.item(), rel=1e-2)


@of("15", "16", "17", "18")
def test_muon_averages_and_looks_ahead(record, one_rank):
    """Two steps of the sheet's rule: a moving average, Nesterov, tall matrices sqrt(rows/columns) times as far."""
    torch.manual_seed(0)
    shapes, rate, momentum = [(16, 16), (64, 16), (16, 64), (16, 16)], 0.05, 0.8
    matrices = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    muon = record.Muon(matrices, learning_rate=rate)
    averages, expected = [torch.zeros(shape) for shape in shapes], [torch.zeros(shape) for shape in shapes]
    for multiplier in (1.0, 0.5):
        for i, matrix in enumerate(matrices):
            gradient = torch.randn_like(matrix)
            matrix.grad = gradient.clone()
            averages[i] = momentum * averages[i] + (1 - momentum) * gradient
            update = record.newton_schulz((1 - momentum) * gradient + momentum * averages[i]).float()
            expected[i] -= multiplier * rate * math.sqrt(max(1, matrix.size(0) / matrix.size(1))) * update
        muon.step(multiplier, momentum)
    for matrix, moved in zip(matrices, expected):
        assert (matrix - moved).norm() < 0.03 * moved.norm()


@of("15", "17", "18")
def test_muon_deals_matrices_out_and_leaves_none(record, monkeypatch):
    """Five matrices of a shape on four ranks: a full round and one of a single matrix; each is moved once by all."""
    torch.manual_seed(0)
    start, gradients = torch.randn(2, 5, 16, 16).unbind()
    sent, results = {}, {}

    class Done:
        def wait(self):
            pass

    def gather(rank, replay):
        rounds = iter(range(10))

        def all_gather_into_tensor(output, own, async_op):
            number = next(rounds)
            sent[rank, number] = own[0].clone()
            if replay:
                output.copy_(torch.stack([sent[other, number] for other in range(4)]))
            else:
                output.zero_()
            return Done()

        return all_gather_into_tensor

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    for replay in (False, True):  # the second time, with what all have sent in the first
        for rank in range(4):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            monkeypatch.setattr(torch.distributed, "all_gather_into_tensor", gather(rank, replay))
            matrices = [torch.nn.Parameter(matrix.clone()) for matrix in start]
            for matrix, gradient in zip(matrices, gradients):
                matrix.grad = gradient.clone()
            record.Muon(matrices, learning_rate=0.1).step(1.0, momentum=0.5)
            results[rank] = torch.stack([matrix.detach() for matrix in matrices])
    expected = start - 0.1 * record.newton_schulz(gradients).float()
    for rank in range(4):
        assert torch.equal(results[rank], results[0])
        torch.testing.assert_close(results[rank], expected, rtol=0, atol=5e-3)
