"""Records 19 to 23 against their sheets: parameters, schedules, the fp8 head, windows, and how gradients and updates
get from rank to rank."""

import math
import multiprocessing

import pytest
import torch
import torch.distributed as dist

NUMBERS = ("19", "20", "21", "21b", "21c", "22", "23")
SMALL = {"table_rows": 128, "vocab_size": 128, "row_tokens": 64, "val_row_tokens": 64, "window_block": 16}
SMALL |= {"model_dim": 32, "num_heads": 2, "head_dim": 16, "mlp_dim": 64}


@pytest.fixture(params=NUMBERS)
def number(request):
    return request.param


@pytest.fixture
def record(definitions_of, number):
    return definitions_of(number)


def small(record, **others):
    """A small model of the record, with those of the settings that it has."""
    wanted = SMALL | others
    names = record.Settings.__dataclass_fields__
    return record.GPT(record.Settings(**{name: value for name, value in wanted.items() if name in names}))


def test_parameters_are_those_of_the_sheet(record):
    with torch.device("meta"):
        model = record.GPT(record.Settings())
    assert sum(parameter.numel() for parameter in model.parameters()) == 275_598_388
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.ndim < 2) == 52
    kinds = {parameter.dtype for parameter in (model.embedding, *model.value_tables)}
    assert kinds == {torch.bfloat16} == {p.dtype for p in model.parameters()} - {torch.float32}


def test_weights_start_as_the_sheet_says(record, number):
    """Uniform with standard deviation 0.5/sqrt(inputs), so within 1/32; zero where a layer adds to the stream."""
    torch.manual_seed(0)
    (block,) = small(record, num_layers=1, model_dim=768, head_dim=384, mlp_dim=768).blocks
    started = [weight for weight in block.parameters() if weight.ndim > 1 and weight.abs().max() > 0]
    assert [tuple(weight.shape)[-2:] for weight in started] == [(768, 768)] * (4 if number == "19" else 2)
    for weight in started:
        assert weight.abs().max().item() == pytest.approx(1 / 32, rel=1e-3) and weight.abs().max() <= 1 / 32
        assert weight.std().item() == pytest.approx(0.5 / math.sqrt(768), rel=1e-2)


GROWTH = {
    "19": [104, 207, 311, 414, 517, 621, 724, 827, 931, 1034, 1137, 1241, 1344],
    "20": [104, 207, 310, 413, 516, 620, 723, 826, 929, 1032, 1136, 1239, 1342],
    "21": [132, 263, 394, 525, 656, 787, 918, 1049, 1181, 1312, 1443, 1574, 1705],
}


def test_schedules_hit_the_sheet_s_values(record, number):
    """The steps at which the window grows, the first below the full learning rate, the rate of the last."""
    steps = record.Settings.num_iterations
    grows = [step for step in range(1, steps + 1) if record.window_blocks(step) > record.window_blocks(step - 1)]
    assert grows == GROWTH[number[:2] if number in GROWTH else "21"]
    assert (record.window_blocks(0), record.window_blocks(steps)) == (1, 14)
    first, last = {"19": (838, 0.1016), "20": (836, 0.1016)}.get(number, (1063, 0.1013))
    assert record.learning_rate_multiplier(first - 1) == 1.0 > record.learning_rate_multiplier(first)
    assert record.learning_rate_multiplier(steps - 1) == pytest.approx(last, abs=5e-5)
    assert [record.muon_momentum(step) for step in (0, 150, 300)] == pytest.approx([0.85, 0.9, 0.95])


def test_eps_of_the_norm_is_that_of_its_time(record, number):
    """bf16's until 20, fp32's from 21 on: seen on a vector whose mean square is about as large."""
    x = torch.full((128,), 0.1, dtype=torch.bfloat16)
    expected = 1 / math.sqrt(1 + (2**-7 / 0.01 if number in ("19", "20") else 0))
    assert record.rms_norm(x)[0].item() == pytest.approx(expected, rel=1e-2)


def test_short_layers_see_half_the_window(record, number, monkeypatch):
    """Layers 0, 4 and 11 see all of it from 20 on; 7 has no attention. Half of one block is one block."""
    model, seen, plain = small(record), [], record.attend

    def attend(query, key, value, mask, *scale):
        seen.append(mask.sum(-1).max().item() // 16)
        assert scale == (() if number == "19" else (0.12,))
        return plain(query, key, value, mask, *scale)

    monkeypatch.setattr(record, "attend", attend)
    tokens = torch.zeros(64, dtype=torch.int32)
    for window, half in ((1, 1), (3, 1), (4, 2)):
        seen.clear()
        model(tokens, tokens.long(), torch.tensor(window, dtype=torch.int32))
        short = window if number == "19" else half
        assert seen == [window, short, short, short, window, short, short, short, short, short, window]


def test_fp8_scales_are_the_published_ones(record, number):
    """As multipliers before the cast: activations, weights, and the gradient of the loss over a whole row."""
    weight, gradient = 1 / record.FP8_WEIGHT_SCALE, 1 / record.FP8_GRADIENT_SCALE
    if number in ("21c", "22", "23"):
        assert (weight, gradient) == pytest.approx((448 / 24, 448))
        return
    assert record.FP8_ACTIVATION_SCALE == 1 / 2
    assert weight == {"19": 32, "20": 32}.get(number, 512)
    assert gradient * record.Settings.row_tokens == {"19": 2**29, "20": 2**29}.get(number, 2**19)


def test_fp8_head_nears_the_exact_one(record, number):
    """Loss and both gradients against fp32's: the mean over tokens until 21b, the sum from 21c on."""
    torch.manual_seed(0)
    summed = number in ("21c", "22", "23")
    width = 7.5 * math.sqrt(64) if summed else 7.5
    x = record.rms_norm(torch.randn(96, 64)).bfloat16()
    weight, targets = torch.randn(160, 64) * (1.0 if summed else 0.2), torch.randint(0, 160, (96,))
    results = []
    for exact in (False, True):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        if exact:
            logits = 30 * torch.sigmoid(leaves[0].float() @ leaves[1].T / width)
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum" if summed else "mean")
        else:
            loss = record.FP8HeadLoss.apply(*leaves, targets, 30.0, width)
        (loss / 4).backward()
        results.append([loss.detach(), *(leaf.grad.float() for leaf in leaves)])
    for approximate, exact in zip(*results):
        assert (approximate - exact).norm() < 0.1 * exact.norm()  # e5m2 has two bits


def test_offset_logits_are_the_old_ones_but_for_a_constant(definitions_of):
    """30 sigmoid(z/7.5) is 15 tanh(z/15) + 15: the loss of 18's head is that of 19's, also in validation."""
    record = definitions_of("19")
    model = small(record).eval()
    torch.nn.init.normal_(model.lm_head.weight)
    tokens = torch.randint(0, 128, (64,))
    window = torch.tensor(2, dtype=torch.int32)
    x, _ = model.hidden(tokens.int(), window)
    logits = 15 * torch.tanh(model.lm_head(x).float() / 15)
    expected = torch.nn.functional.cross_entropy(logits, tokens)
    assert model(tokens.int(), tokens, window).item() == pytest.approx(expected.item(), rel=1e-5)


def buckets_of(record, parameters, mebibytes):
    """(number of parameters, MiB to one digit) of every bucket."""
    groups = record.in_buckets(parameters, mebibytes)
    return [(len(group), round(sum(parameter.nbytes for parameter in group) / 2**20, 1)) for group in groups]


def test_buckets_are_those_of_the_sheets(definitions_of):
    """22: in the model's order, up to 64 MiB. 23: large ones first, up to 25 MiB."""
    with torch.device("meta"):
        old, new = (definitions_of(number).GPT(definitions_of(number).Settings()) for number in ("22", "23"))
    made = buckets_of(definitions_of("22"), list(old.parameters()), 64)
    table, head = (1, 73.6), (1, 147.4)
    blocks = [(16, 63.0), (13, 63.0), (14, 63.0), (13, 63.0), (13, 63.0)]
    assert sorted(made) == sorted([(1, 0.0), *[table] * 4, head, *blocks])
    by_size = sorted(new.parameters(), key=torch.numel, reverse=True)
    made = buckets_of(definitions_of("23"), by_size, 25)
    expected = [head, *[table] * 4, *[(2, 18.0)] * 11, (3, 24.8), *[(3, 20.2)] * 3, (9, 24.8), (27, 6.8)]
    assert made == expected and len(made) == 22


ROWS = 8
SHAPES = {"tall": (32, 8), "wide": (8, 32), "square": (8, 8), "other": (8, 8), "last": (8, 8), "factors": (2,)}


def toy(number):
    """Parameters to train, with a table in bf16; three dimensions where the record has them."""
    shapes = SHAPES | ({} if number == "19" else {"batch": (3, 8, 8)})
    parameters = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    return parameters | {"table": torch.nn.Parameter(torch.zeros(10, 4, dtype=torch.bfloat16))}


def row_gradients(parameters, step):
    """What each of a step's rows contributes."""
    generator = torch.Generator().manual_seed(step)
    return [
        {name: torch.randn(value.shape, generator=generator).to(value.dtype) for name, value in parameters.items()}
        for _ in range(ROWS)
    ]


def matrices_of(parameters):
    return [value for name, value in parameters.items() if value.ndim > 1 and name != "table"]


def train_toy(record, number, rank, size):
    """Two steps as the script takes them, on this rank's rows. Returns the gradients of both and the matrices."""
    parameters = toy(number)
    values, passes = list(parameters.values()), ROWS // size
    muon = record.Muon(matrices_of(parameters), 0.05)
    if number == "22":
        buckets = [record.Bucket(group) for group in record.in_buckets(values, 1)]
    elif number == "23":
        by_size = sorted(values, key=torch.numel, reverse=True)
        buckets = [record.Bucket(group, passes) for group in record.in_buckets(by_size, 1)]
    results = []
    for step in range(2):
        for row in row_gradients(parameters, step)[rank::size]:
            loss = sum((parameters[name] * gradient).sum().float() for name, gradient in row.items()) / passes
            loss.backward()
        if number == "22":
            for bucket in buckets:
                bucket.send()
        if number in ("22", "23"):
            for bucket in buckets:
                bucket.receive()
        else:
            record.average_gradients(values)
        results += [value.grad.float().clone() for value in values]
        muon.step(1.0, 0.9)
        for value in values:
            value.grad = None
    return [result.numpy() for result in results + [matrix.detach() for matrix in matrices_of(parameters)]]


def one_of_several(records, rank, size, store, results):
    """A forked rank: every record's two steps, one after the other."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    results.send({number: train_toy(record, number, rank, size) for number, record in records.items()})
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_and_updates_are_those_of_all_rows_at_any_number_of_ranks(definitions_of, size, tmp_path):
    """Every rank ends with the mean gradient of all eight rows, and with Muon's rule applied to it twice."""
    records = {number: definitions_of(number) for number in NUMBERS}
    fork = multiprocessing.get_context("fork")
    ranks = []
    for rank in range(size):
        mine, theirs = fork.Pipe(duplex=False)
        arguments = (records, rank, size, str(tmp_path / "store"), theirs)
        process = fork.Process(target=one_of_several, args=arguments, daemon=True)
        process.start()
        theirs.close()
        ranks.append((process, mine))
    outcomes = [pipe.recv() if pipe.poll(60) else None for _, pipe in ranks]
    for process, _ in ranks:
        process.join(10)
        process.kill()
    assert all(outcome is not None for outcome in outcomes)

    for number, record in records.items():
        parameters = toy(number)
        expected, moved = [], [torch.zeros_like(matrix) for matrix in matrices_of(parameters)]
        buffers = [torch.zeros_like(matrix) for matrix in moved]
        for step in range(2):
            rows = row_gradients(parameters, step)
            mean = {name: sum(row[name].float() for row in rows) / ROWS for name in parameters}
            expected += list(mean.values())
            for i, gradient in enumerate(matrices_of(mean)):
                buffers[i] = 0.9 * buffers[i] + 0.1 * gradient
                update = record.newton_schulz(0.1 * gradient + 0.9 * buffers[i]).float()
                moved[i] -= 0.05 * math.sqrt(max(1, update.size(-2) / update.size(-1))) * update
        for outcome in outcomes:
            assert len(outcome[number]) == len(expected + moved)
            for result, wanted in zip(outcome[number], expected + moved):
                assert (torch.from_numpy(result) - wanted).norm() < 2e-2 * wanted.norm(), number


def test_a_bucket_sets_off_with_the_last_gradient_of_a_step(definitions_of, one_rank):
    """Two backward passes make a step of 23; until the second has brought both gradients nothing is sent."""
    bucket = definitions_of("23").Bucket(parameters := [torch.nn.Parameter(torch.zeros(4)) for _ in range(2)], 2)
    for missing in (2, 0):
        sum(parameter.sum() for parameter in parameters).backward()
        assert bucket.missing == missing and hasattr(bucket, "work") == (missing == 0)
    bucket.receive()
    assert bucket.missing == 4 and all(torch.equal(p.grad, torch.full((4,), 2.0)) for p in parameters)


def test_the_clock_of_the_old_rules_leaves_ten_steps_out(definitions_of):
    """19 to 21 have steps that are not timed, 21b to 23 a warmup; nobody has both."""
    for number in NUMBERS:
        names = definitions_of(number).Settings.__dataclass_fields__
        old = number in ("19", "20", "21")
        assert ("untimed_iterations" in names, "warmup_iterations" in names) == (old, not old)
