"""The synthetic source: its floor is the truth, its shards are reproducible, and nothing foreign is overwritten."""

import json

import numpy as np
import pytest

from harness.errors import UserError
from harness.tokens import synthetic
from harness.tokens.shards import check_shard, open_shard, write_shard
from harness.tokens.synthetic import code_length, ensure_synthetic, entropy_rate, generate
from harness.tokens.synthetic_source import LONGEST, MEDIAN_LENGTH, STATES, entropy, source
from tests.processor import seconds_of

SMALL = {"train_shards": 2, "tokens_per_shard": 5000, "val_tokens": 3000}


@pytest.mark.parametrize("seed, median", [(0, 60.0), (1, 60.0), (2, 4.0), (3, 400.0)])
def test_entropy_rate_is_the_code_length_of_the_true_distribution(seed, median):
    tokens = np.concatenate([generate(1 << 19, seed, stream, median) for stream in range(4)])
    loss = code_length(tokens, seed, median)
    assert np.isfinite(loss).sum() >= len(loss) - 3  # the joints between streams may cut a document at an odd place
    loss = loss[np.isfinite(loss)]
    assert loss.mean() == pytest.approx(entropy_rate(seed, median), abs=5 * 2 / np.sqrt(len(loss)))


def test_predictors_that_know_less_or_are_wrong_lose_more():
    tokens, chain = generate(1 << 18), source()
    floor = entropy_rate()
    assert chain.unigram_entropy() > floor + 1
    counts = np.bincount(tokens, minlength=50257) / len(tokens)
    assert -np.log(counts[tokens]).mean() == pytest.approx(chain.unigram_entropy(), abs=0.02)
    assert code_length(tokens, median_length=30.0).mean() > code_length(tokens).mean()
    before, after = tokens[:-1].astype(int), tokens[1:].astype(int)
    _, kind, count = np.unique(before * 50257 + after, return_inverse=True, return_counts=True)
    bigram = count[kind] / np.bincount(before, minlength=50257)[before]
    assert floor - 0.1 < -np.log(bigram).mean() < floor + 0.1  # fitted to its own test set, and worth most of the way


def test_pieces_of_the_closed_form():
    chain = source(5)
    np.testing.assert_allclose(chain.stationary @ chain.transition, chain.stationary, atol=1e-12)
    np.testing.assert_allclose(chain.transition.sum(1), 1)
    assert chain.length.sum() == pytest.approx(1) and not chain.length[:2].any() and len(chain.length) == LONGEST + 1
    assert entropy(np.array([0.5, 0.5, 0.0])) == pytest.approx(np.log(2))


def test_hand_computed_code_length():
    chain = source()
    first, second = chain.ids[3], chain.successors[3, 0]
    tokens = np.array([50256, first, chain.ids[second], 50256])
    survive_two = 1 - chain.length[2]
    hazard = chain.length[3] / survive_two
    by_hand = [chain.stationary[3], survive_two * chain.transition[3, second], hazard]
    np.testing.assert_allclose(code_length(tokens), -np.log(by_hand), rtol=1e-9)


def test_impossible_tokens_cost_infinity():
    absent = next(token for token in range(50256) if token not in source().ids)
    assert code_length(np.array([50256, absent]))[0] == np.inf
    assert code_length(np.array([50256, 50256]))[0] == np.inf  # a document has at least one token after its start


def test_documents_look_as_described():
    tokens = generate(1 << 18)
    starts = np.flatnonzero(tokens == 50256)
    lengths = np.diff(starts)
    assert tokens[0] == 50256 and lengths.min() >= 2 and lengths.max() <= LONGEST
    assert np.median(lengths) == pytest.approx(60, rel=0.05)
    assert len(np.unique(tokens)) == STATES + 1 and np.unique(tokens)[-2] > 50000


def test_the_figures_kept_for_seed_0_are_those_of_its_source():
    assert synthetic._facts(0, MEDIAN_LENGTH) == synthetic.OF_SEED_0


def test_streams_are_reproducible_and_differ():
    np.testing.assert_array_equal(generate(1000, 7), generate(1000, 7))
    assert not np.array_equal(generate(1000, 7), generate(1000, 7, stream=1))
    assert not np.array_equal(generate(1000, 7), generate(1000, 8))
    assert [len(generate(n)) for n in (1, 2, 999)] == [1, 2, 999]


def test_default_shards_take_seconds_and_are_reused(tmp_path):
    made = []
    assert seconds_of(lambda: made.append(ensure_synthetic(tmp_path / "synthetic")), repeats=1) < 3
    manifest = made[0]
    assert manifest.tokens("train") == 2 << 20 and manifest.tokens("val") == 1 << 19
    assert manifest.entropy_nats == pytest.approx(entropy_rate(), abs=1e-6)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "synthetic").iterdir()}
    assert ensure_synthetic(tmp_path / "synthetic") == manifest
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "synthetic").iterdir()}


def test_the_same_seed_gives_the_same_digest_anywhere(tmp_path):
    one, two = (ensure_synthetic(tmp_path / name, seed=3, **SMALL) for name in "ab")
    assert one.digest == two.digest != ensure_synthetic(tmp_path / "c", seed=4, **SMALL).digest
    assert json.loads((tmp_path / "a/manifest.json").read_text())["digest"] == one.digest


def test_a_damaged_folder_is_made_again(tmp_path):
    manifest = ensure_synthetic(tmp_path, **SMALL)
    write_shard(tmp_path / "fineweb_train_000002.bin", np.arange(5000))
    assert ensure_synthetic(tmp_path, **SMALL) == manifest
    (tmp_path / "fineweb_val_000000.bin").write_bytes(b"half")
    assert ensure_synthetic(tmp_path, **SMALL) == manifest
    assert check_shard(tmp_path / "fineweb_val_000000.bin") == 3000


def test_fewer_shards_leave_no_old_ones_behind(tmp_path):
    ensure_synthetic(tmp_path, **SMALL)
    ensure_synthetic(tmp_path, **(SMALL | {"train_shards": 1, "seed": 1}))
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == [
        "fineweb_train_000001.bin",
        "fineweb_val_000000.bin",
    ]
    np.testing.assert_array_equal(open_shard(tmp_path / "fineweb_val_000000.bin"), generate(3000, 1))


def test_other_data_is_never_overwritten(tmp_path):
    write_shard(tmp_path / "fineweb_train_000001.bin", np.arange(10))
    with pytest.raises(UserError, match=r"fineweb_train_000001\.bin is not of the synthetic source"):
        ensure_synthetic(tmp_path, **SMALL)
    assert check_shard(tmp_path / "fineweb_train_000001.bin") == 10


@pytest.mark.parametrize("wrong", [{"train_shards": 0}, {"tokens_per_shard": 0}, {"seed": -1}, {"median_length": 1.0}])
def test_settings_that_make_no_source(tmp_path, wrong):
    with pytest.raises(UserError):
        ensure_synthetic(tmp_path, **(SMALL | wrong))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be"):
        ensure_synthetic(tmp_path / "file" / "data", **SMALL)
