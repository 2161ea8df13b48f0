"""Hostile text: the reader answers with a Run or one LogError line, in time that grows with the length, no more."""

import unicodedata
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import timing.blocks
from tests.processor import seconds_of
from timing.lines import parse_line
from timing.log import LogError, Run, read_log

BANNER = b"=" * 100 + b"\n"
WHOLE = (
    b'import torch\nx = """\n'
    + BANNER
    + b'"""\n'
    + b"-" * 40
    + b"\n# k.py\n"
    + b"-" * 40
    + b"\ny = 1\n"
    + BANNER
    + b"Running Python "
    b"3.12.7 (main)\nRunning PyTorch 2.9.0 compiled for CUDA 12.6\nSat Oct  4 06:07:53 2025\nseed=7\noverride a=b\n"
    b"|   0  NVIDIA H100 80GB HBM3          On  |   00000000:61:00.0 Off |                    0 |\n"
    + BANNER
    + b"step:0/3 "
    b"val_loss:10.8258 train_time:0ms step_avg:nanms\nstep:1/3 train_time:87ms step_avg:87.00ms\nfallback step:1 why\n"
    b"step:2/3 train_loss:9.5 train_time:174ms step_avg:87.00ms\ntelemetry step:2 grad_norm:1\n"
    b"step:3/3 val_loss:9.12345 train_time:0.261s step_avg:87.00ms beta:0.5\npeak memory allocated: 5 MiB\n"
)
LLMC = b"s:0 tel:10.968871\ns:0 trl:10.965596\ns:1 trl:10.814037 lr:0.1 norm:2\ns:2 tel:10.5\n"
OPENINGS = [b"step:1/3 ", b"s:1 ", b"step:", b"s:", b"step:00000000000000000009/3 "]
FIELDS = [
    b"val_loss:3.25",
    b"train_loss:3.141592653589793238",
    b"train_time:7ms",
    b"train_time:0.007s",
    b"train_time:7",
]
FIELDS += [
    b"step_avg:1.5ms",
    b"step_avg:nanms",
    b"step_avg:2ms",
    b"train_time:8ms",
    b"tel:3.5",
    b"trl:1e-3",
    b"lr:0.1",
    b"ema_val_loss:9",
    b"val_loss:nan",
]
FIELDS += [
    b"val_loss:",
    b":",
    b"train_time:12345678901ms",
    b"val_loss:3.25step:2/3",
    b"step:2/3",
    b"val_loss:.5",
    b"\x00",
]

excerpts = st.builds(
    lambda text, cut, size: text[cut : cut + size],
    st.sampled_from([WHOLE, LLMC]),
    st.integers(0, 900),
    st.integers(0, 700),
)
metric_lines = st.builds(
    lambda opening, parts, blank, end: opening + blank.join(parts) + end,
    st.sampled_from(OPENINGS),
    st.lists(st.sampled_from(FIELDS), max_size=4),
    st.sampled_from([b" ", b"  ", b"\t"]),
    st.sampled_from([b"\n", b"\r\n", b"", b" \n"]),
)
some_pairs = st.lists(
    st.sampled_from(
        [b"lr:0.1", b"x", b"train_time", b"ema_val_loss:9", b"step_avg:2ms", b"tel:1", b"\x0bz:1", b"y" * 1880]
    ),
    max_size=2,
)
nearly_plain_lines = st.builds(
    lambda head, before, time, average, behind, end: b" ".join([head, *before, time, average, *behind]) + end,
    st.sampled_from(
        [b"step:1/3", b"step:1/3 val_loss:3.25", b"step:2/3 train_loss:3.5", b"step:2/3 lr:1 val_loss:3.0"]
    ),
    some_pairs,
    st.sampled_from(
        [b"train_time:7ms", b"train_time:0.0075s", b"\ttrain_time:7ms", b"a_train_time:7ms", b"train_time:-7ms"]
    ),
    st.sampled_from([b"step_avg:1.5ms", b"step_avg:nanms", b"b:1 step_avg:1.5ms"]),
    some_pairs,
    st.sampled_from([b"\n", b"\r\n", b" \n"]),
)
hostile = st.sampled_from(
    [
        b"\x1b]0;x\x07",
        b"<script>",
        b"\xe2\x80\xae",
        b"\xff\xfe",
        b"\0",
        b'"""',
        b"'''",
        b"\\",
        b"|",
        b"\n",
        b"\r",
        BANNER,
    ]
)
repeated = st.builds(lambda piece, times: piece * times, excerpts | hostile, st.integers(1, 300))
pieces = st.one_of(excerpts, metric_lines, hostile, repeated, st.binary(max_size=60), st.just(WHOLE))
contents = st.one_of(st.binary(max_size=300), st.lists(pieces, max_size=8).map(b"".join))
fuzz = settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "log.txt"


@fuzz
@given(contents)
def test_any_bytes_give_a_sound_run_or_one_line(path, content):
    path.write_bytes(content)
    try:
        run = read_log(path)
    except LogError as error:
        assert "\n" not in str(error) and str(error).isprintable()
        return
    for kind in ("val", "train"):
        columns = [getattr(run, f"{kind}_{name}") for name in ("step", "loss", "time_ms", "step_avg_ms", "line")]
        assert len({len(column) for column in columns}) == 1
        assert (np.diff(columns[-1]) > 0).all() and set(columns[-1]) <= set(range(1, run.lines + 1))
    assert run.bytes == len(content)
    assert run.complete in (True, False) and sum(len(trial.val_step) for trial in run.trials()) == len(run.val_step)
    assert all(0 <= note.line <= run.lines for note in (*run.notes, *run.fallbacks))
    for text in texts(run):
        assert all(unicodedata.category(letter) not in ("Cc", "Cf", "Cs") for letter in text), text


def texts(run: Run):
    """All text fields that came from the log, but for the source."""
    for field in fields(run):
        value = getattr(run, field.name)
        if isinstance(value, str) and field.name not in ("path", "source"):
            yield value
    yield from (text for pair in run.overrides.items() for text in pair)
    yield from (name for name, _ in run.helpers)
    yield from (note.text for note in (*run.notes, *run.fallbacks))


@fuzz
@given(
    st.lists(metric_lines | st.sampled_from(WHOLE.splitlines(keepends=True)), min_size=1, max_size=30)
    | st.lists(nearly_plain_lines, min_size=1, max_size=3)
)
def test_the_vectorised_reader_agrees_with_the_grammar(path, lines):
    """Every metric line is read alone by the grammar; the whole log must say the same, line by line."""
    content = b"text\n" + b"".join(
        line if line.endswith(b"\n") else line + b"\n" for line in lines if BANNER not in line
    )
    path.write_bytes(content)
    expected = {"val": [], "train": []}
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        metric = parse_line(line.rstrip(b"\r"))
        if metric and metric.kind:
            row = (number, metric.step, metric.loss, metric.time_ms, metric.step_avg_ms)
            expected[metric.kind].append(tuple(map(str, map(float, row))))
    try:
        run = read_log(path)
    except LogError:
        assert not expected["val"] and not expected["train"]
        return
    for kind, rows in expected.items():
        columns = [getattr(run, f"{kind}_{name}") for name in ("line", "step", "loss", "time_ms", "step_avg_ms")]
        assert [tuple(map(str, map(float, row))) for row in zip(*columns, strict=True)] == rows


@fuzz
@given(st.lists(pieces, min_size=1, max_size=6).map(b"".join), st.integers(64, 500))
def test_the_size_of_a_block_changes_nothing(path, content, size):
    path.write_bytes(content)
    whole = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.blocks, "BLOCK", size + len(content) // 50)
        assert outcome(path) == whole


def outcome(path):
    try:
        run = read_log(path)
    except LogError as error:
        return str(error)
    return [
        value.tolist().__repr__() if isinstance(value, np.ndarray) else value
        for value in (getattr(run, field.name) for field in fields(run))
    ]


MANY = 400_000
STEP = b"step:1/2 train_time:10ms step_avg:10.00ms\n"


@pytest.mark.parametrize(
    "body",
    [
        b"\n" * MANY,
        b" " * MANY,
        b"step:1/2 " * (MANY // 9),
        b"step:1/2 train_time:1x\n" * (MANY // 22),
        b"s:1 trl:x\n" * (MANY // 10),
        b"step:1/2 val_loss:nan train_time:1ms step_avg:1.0ms\n" * (MANY // 52),
        b"step:" + b"1" * MANY,
        BANNER * (MANY // 101),
        b'import x\n"""\n' + BANNER * (MANY // 101) + b'"""\n',
        b"import x\n" + (b'"""\n' + BANNER + b'"""\n') * (MANY // 110),
        b"import x\n" + b'"' * MANY,
        b"import x\n" + b'"\\' * (MANY // 2),
        b'import x\n"""' + b'\\"""' * (MANY // 4),
        b'import x\n"""' + b"\\" * MANY,
        b"import x\n" + b"'''\"\"\"" * (MANY // 6),
        b"import x\n" + (b"-" * 40 + b"\n# a.py\n") * (MANY // 48),
        b"import x\n" + (b"-" * 40 + b"\n# a.py\n" + b"-" * 40 + b"\n") * (MANY // 89),
        b"import x\n" + b"\r\n" * (MANY // 2) + BANNER,
        b"import x\n" + BANNER + b"|" * MANY,
        b"import x\n" + BANNER + b"|          \n" * (MANY // 12),
        b"import x\n" + BANNER + b"Running on on on on on on\n" * (MANY // 26),
        b"import x\n" + BANNER + b"Running PyTorch  " * (MANY // 17),
        b"import x\n" + BANNER + b"override a=b\n" * (MANY // 13),
        b"".join(b"step:%d/%d train_time:1ms step_avg:1.0ms\n" % (i % 5, i % 7) for i in range(MANY // 40)),
    ],
    ids=lambda body: repr(body[:24] + b"..." + body[-16:]),
)
def test_time_grows_no_faster_than_the_length(path, body):
    """Four times the text takes at most some eight times the time, and the long one under two seconds."""
    path.write_bytes(body[: MANY // 4] + b"\n" + BANNER + STEP)
    short = seconds_of(lambda: read_log(path))
    path.write_bytes(body + b"\n" + BANNER + STEP)
    long = seconds_of(lambda: read_log(path))
    assert long < 2 and long < 8 * short + 0.1
