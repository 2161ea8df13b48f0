"""What records 32 to 39 say they changed, each against its parent or its sheet, at toy size on the CPU."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

TOY = {"vocab_size": 160, "model_dim": 16, "num_heads": 2, "head_dim": 8, "mlp_dim": 64, "window_block": 8}
TOY |= {"row_tokens": 64, "val_row_tokens": 64, "document_tokens": 48}

# Numbers of steps; learning rate multiplier, momentum and windows at the steps that the sheets name.
LEARNING_RATES = {
    "32": {834: 1.0, 1669: 0.10108},
    "33": {829: 1.0, 1659: 0.10108},
    "34": {822: 1.0, 1644: 0.10109},
    "35": {820: 1.0, 821: 0.99890, 1639: 0.10110, 1679: 0.10018},
    "36": {820: 1.0, 1640: 0.10018},
    "37": {820: 1.0, 1639: 0.101098, 1679: 0.10018},
    "38": {815: 1.0, 1629: 0.101104, 1630: 0.10018},
    "39": {1428: 1.0, 2379: 0.100945, 2380: 0.100225},
}
WINDOW_CHANGES = {"32": (557, 1114), "33": (554, 1108), "34": (549, 1098), "38": (544, 1088), "39": (794, 1588)}
WINDOW_CHANGES |= dict.fromkeys(("35", "36", "37"), (547, 1094))
MOMENTA = {number: {0: 0.85, 150: 0.90, 299: 0.949667, 300: 0.95, 1600: 0.95} for number in LEARNING_RATES}
MOMENTA["39"] = {0: 0.85, 299: 0.949667, 300: 0.949667, 2370: 0.949667, 2371: 0.948, 2419: 0.852}
PARAMETERS = {"32": 271_024_984, "33": 271_024_984, "34": 271_025_004}
PARAMETERS |= dict.fromkeys(("35", "36", "37", "38", "39"), 268_665_636)


@pytest.mark.parametrize("number", LEARNING_RATES)
def test_schedules_hit_the_sheets_values(number, definitions_of):
    record = definitions_of(number)
    for step, multiplier in LEARNING_RATES[number].items():
        assert record.learning_rate_multiplier(step) == pytest.approx(multiplier, abs=6e-6)
    for step, momentum in MOMENTA[number].items():
        assert record.muon_momentum(step) == pytest.approx(momentum, abs=1e-6)
    last = record.settings.num_iterations - 1
    first, second = WINDOW_CHANGES[number]
    windows = [record.window_blocks(step) for step in (0, first - 1, first, second - 1, second, last)]
    assert windows == [3, 3, 7, 7, 11, 11]


@pytest.mark.parametrize("number", PARAMETERS)
def test_parameters_are_those_of_the_sheet(number, definitions_of):
    record = definitions_of(number)
    with torch.device("meta"):
        model = record.GPT(record.Settings())
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[number]
    _, model = models(number, definitions_of)
    blocks = list(model.blocks.values() if hasattr(model.blocks, "values") else model.blocks)
    attentions = [block.attention for block in blocks if block.attention]
    matrices = torch.stack([attention.qkvo.detach().view(4, 16, 16) for attention in attentions])
    assert matrices[:, :3].std().item() == pytest.approx(0.5 / math.sqrt(16), rel=2e-2)
    assert matrices[:, 3].abs().max() == 0
    in_bf16 = [model.lm_head, model.embedding, *model.value_tables, *(attention.gate for attention in attentions)]
    assert {parameter.dtype for parameter in in_bf16} == {torch.bfloat16}
    assert torch.sigmoid(model.scalars[:5]).tolist() == pytest.approx([0.18243] * 5, abs=1e-5)


def models(number, definitions_of, **settings):
    """The record's definitions, and its toy model from one seed."""
    record = definitions_of(number)
    record.settings = record.Settings(**TOY | settings)
    torch.manual_seed(1)
    return record, record.GPT(record.settings)


def stir(model):
    """Give every parameter that starts at zero a value, so that nothing hides behind it."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def batch(seed=0):
    """Tokens, targets, document ends, the longest document, windows."""
    tokens = torch.randint(0, 160, (65,), generator=torch.Generator().manual_seed(seed))
    return tokens[:-1].int(), tokens[1:], torch.tensor([0, 20, 21, 64, 64], dtype=torch.int32), 48, (3, 1)


# 32 and 33: the loader


def write_shard(path, seed, tokens=4000):
    """A shard of short documents, some longer than the limit; what stands before its first start belongs to none."""
    generator = np.random.default_rng(seed)
    content = generator.integers(0, 160, tokens).astype("<u2")
    content[generator.choice(tokens - 5, tokens // 30, replace=False) + 5] = 50256
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, tokens
    path.write_bytes(header.tobytes() + content.tobytes())


def loader(number, definitions_of, data_dir, ranks, rank, **settings):
    record = definitions_of(number)
    record.settings = record.Settings(**TOY | {"data_dir": str(data_dir)} | settings)
    record.world_size, record.rank, record.device = ranks, rank, torch.device("cpu")
    return record.train_batches()


@pytest.mark.parametrize("first_scan", [10**6, 1500, 600])
def test_33_reads_the_tokens_of_32(first_scan, definitions_of, tmp_path):
    """Batch for batch, over three shards and round again, wherever the first search of the first shard ends."""
    for shard in range(3):
        write_shard(tmp_path / f"fineweb_train_{shard:06d}.bin", shard)
    parents = loader("32", definitions_of, tmp_path, 1, 0)
    children = loader("33", definitions_of, tmp_path, 1, 0, first_scan_tokens=first_scan)
    firsts = []
    for _ in range(24):
        parent, child = next(parents), next(children)
        assert len(parent) == len(child) == 8
        for mine, theirs in zip(parent, child):
            assert mine[3] == theirs[3] and all(torch.equal(a, b) for a, b in zip(mine[:3], theirs[:3]))
        firsts.append(parent[0][0].tolist())
    assert firsts[0] in firsts[1:], "the shards were not walked through once"


@pytest.mark.parametrize("number", ["32", "33"])
def test_ranks_share_the_rows_of_a_step(number, definitions_of, tmp_path):
    for shard in range(2):
        write_shard(tmp_path / f"fineweb_train_{shard:06d}.bin", shard)
    whole = loader(number, definitions_of, tmp_path, 1, 0)
    halves = [loader(number, definitions_of, tmp_path, 2, rank) for rank in range(2)]
    for _ in range(9):
        rows = next(whole)
        for rank, half in enumerate(halves):
            assert all(torch.equal(a[0], b[0]) for a, b in zip(rows[rank::2], next(half), strict=True))


# 33 to 36: the model


def test_33_widens_the_last_layer_alone(definitions_of):
    _, model = models("33", definitions_of)
    stir(model)
    tokens, _, ends, longest, windows = batch()
    same = model.hidden(tokens, ends, longest, (*windows, windows[0]))
    wide = model.hidden(tokens, ends, longest, (*windows, 8))
    plain = model.hidden(tokens, ends, longest, windows)
    assert all(torch.equal(a, b) for a, b in zip(same, plain))
    assert all(torch.equal(a, b) for a, b in zip(wide[:-1], plain))
    assert not torch.equal(wide[-1], plain[-1])


def test_34_smears_as_the_sheet_says(definitions_of):
    _, model = models("34", definitions_of)
    embedding = torch.randn(9, 16).bfloat16()
    assert torch.equal(model.smear(embedding), embedding)  # the strength starts at 0
    with torch.no_grad():
        model.scalars[60] = 0.7
        model.smear_gate.normal_()
    expected = embedding.double().clone()
    for t in range(1, 9):
        gate = torch.sigmoid(model.smear_gate.double()[0] @ embedding[t, :12].double())
        expected[t] += 0.7 * gate * embedding[t - 1].double()
    torch.testing.assert_close(model.smear(embedding).double(), expected, rtol=2e-2, atol=2e-2)


def test_35_is_34_with_a_first_layer_that_does_nothing(definitions_of):
    """34 with layer 0's attention silenced and its skip shut is 35, given the same weights."""
    _, parent = models("34", definitions_of)
    _, child = models("35", definitions_of)
    stir(parent)
    with torch.no_grad():
        parent.blocks[0].attention.qkvo[3].zero_()
        parent.scalars[5] = -float("inf")  # the skip from 0 to 11
    child.load_state_dict({n: p for n, p in parent.state_dict().items() if not n.startswith("blocks.0.")})
    inputs = batch()
    assert child(*inputs).item() == parent(*inputs).item()


def test_36_computes_what_35_does(definitions_of):
    """The same memory, declared in another shape; also the same initial values from the same seed."""
    (_, parent), (_, child) = models("35", definitions_of), models("36", definitions_of)
    for mine, theirs in zip(parent.parameters(), child.parameters(), strict=True):
        assert torch.equal(mine.flatten(), theirs.flatten())
    inputs = batch()
    for model in (stir(parent), child):
        with torch.no_grad():
            for source, target in zip(parent.parameters(), model.parameters(), strict=True):
                target.view(-1).copy_(source.view(-1))
    assert parent(*inputs).item() == child(*inputs).item()


@pytest.mark.parametrize("number", ["36", "37"])
def test_cross_entropy_is_bf16_from_37_on(number, definitions_of):
    _, model = models(number, definitions_of, fp8=False)
    stir(model)
    training = model(*batch())
    assert training.dtype == (torch.float32 if number == "36" else torch.bfloat16)
    model.eval()
    validation = model(*batch())
    assert validation.dtype == torch.float32
    assert training.item() == pytest.approx(64 * validation.item(), rel=8e-3)


# 32 to 39: Muon


def muon_of(record, model):
    """Muon over the model's matrices, grouped as the record's Setup does it."""
    named = [(name, p) for name, p in model.named_parameters() if name.startswith("blocks.")]
    smear = [model.smear_gate] if hasattr(model, "smear_gate") else []
    if hasattr(record.Muon, "orthogonalise"):  # groups made by hand, from 36 on
        gates = [p for name, p in named if name.endswith("gate")]
        matrices = [p for name, p in named if name.endswith("qkvo")]
        matrices += [p for name, p in named if ".mlp." in name]
        half = len(matrices) // 2
        return record.Muon([smear, gates, matrices[:half], matrices[half:]], 0.5, 0.25)
    return record.Muon(smear + [p for _, p in named], 0.5, 0.25)


def play_collectives(monkeypatch, ranks, rank):
    """Let `torch.distributed` be as this rank sees it when all have the same gradients."""

    def reduce_scatter(share, packed, async_op):
        share.copy_(packed.chunk(ranks)[rank])
        return SimpleNamespace(wait=lambda: None)

    def all_gather(whole, share, async_op):
        whole.zero_().chunk(ranks)[rank].copy_(share)
        return SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
    monkeypatch.setattr(dist, "get_rank", lambda: rank)
    monkeypatch.setattr(dist, "reduce_scatter_tensor", reduce_scatter)
    monkeypatch.setattr(dist, "all_gather_into_tensor", all_gather)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("number", ["32", "36"])
def test_muon_is_right_at_any_number_of_ranks(number, ranks, definitions_of, monkeypatch):
    """Every matrix is owned once, and moves, from rest and without momentum, along the orthogonalised gradient of
    itself alone: four squares in an attention parameter, whatever else its chunk holds."""
    record, model = models(number, definitions_of)
    weights = {n: p for n, p in model.named_parameters() if n.startswith(("blocks.", "smear_gate"))}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    gradients = {name: torch.randn_like(weight) for name, weight in before.items()}
    moved = {}
    for rank in range(ranks):
        for name, weight in weights.items():
            weight.data.copy_(before[name])
            weight.grad = gradients[name].clone()
        play_collectives(monkeypatch, ranks, rank)
        muon = muon_of(record, model)
        muon.step(1.0, 0.0)
        own = {id(parameter) for chunk in muon.own for parameter in chunk}
        mine = {name: weight.detach().clone() for name, weight in weights.items() if id(weight) in own}
        assert not moved.keys() & mine.keys()
        moved |= mine
    assert moved.keys() == weights.keys()
    for name, value in moved.items():
        gradient = 0.25 * gradients[name]
        batch = gradient.view(4, 16, 16) if name.endswith("qkvo") else gradient[None]
        expected = before[name] - 0.5 * record.newton_schulz(batch).view_as(gradient)
        torch.testing.assert_close(value, expected, rtol=2e-2, atol=2e-2)


def test_newton_schulz_maps_single_values_as_the_sheet_says(definitions_of):
    """Check values of sheet 37, 4.9: a matrix of one singular value far above the others; after normalisation it is 1,
    and the others are what they are beside it."""
    others = torch.tensor([0.01, 0.1, 0.3])
    matrix = torch.zeros(1, 4, 8)
    matrix[0, range(4), range(4)] = torch.cat([(1 - others.square().sum()).sqrt()[None], others])
    result = definitions_of("37").newton_schulz(matrix)[0].diagonal().float()
    assert result[1:].tolist() == pytest.approx([0.6989, 0.7121, 1.0796], abs=3e-2)
    assert definitions_of("37").newton_schulz(torch.zeros(1, 4, 8)).abs().max() == 0
