"""The shard format: what is written is read back, and every defect is named with its file and byte."""

import numpy as np
import pytest

from harness.tokens.shards import HEADER_BYTES, ShardError, check_shard, open_shard, read_header, write_shard


@pytest.fixture
def shard(tmp_path):
    """A good shard of 1,000 tokens, the last ids of the vocabulary among them."""
    tokens = np.random.default_rng(0).integers(0, 50257, 1000)
    tokens[0] = tokens[-1] = 50256
    return write_shard(tmp_path / "fineweb_train_000001.bin", tokens), tokens


def patch(path, offset, values, dtype="<i4"):
    """Overwrite bytes of a file from `offset` on."""
    data = bytearray(path.read_bytes())
    raw = np.asarray(values, dtype=dtype).tobytes()
    data[offset : offset + len(raw)] = raw
    path.write_bytes(data)


def test_written_tokens_are_read_back_memory_mapped(shard):
    path, tokens = shard
    mapped = open_shard(path)
    assert isinstance(mapped, np.memmap) and mapped.dtype == np.uint16
    assert read_header(path) == check_shard(path) == 1000
    np.testing.assert_array_equal(mapped, tokens)
    with pytest.raises(ValueError):
        mapped[0] = 1


def test_layout_is_that_of_the_published_shards(shard):
    path, _ = shard
    header = np.frombuffer(path.read_bytes()[:HEADER_BYTES], dtype="<i4")
    assert header[:3].tolist() == [20240520, 1, 1000] and not header[3:].any()
    assert path.stat().st_size == 1024 + 2 * 1000


@pytest.mark.parametrize(
    "offset, values, found",
    [
        (0, [20240801], "byte 0: magic number 20240801"),
        (4, [7], "byte 4: version 7"),
        (8, [-5], "byte 8: a token count of -5"),
        (8, [1001], "byte 3024: 1001 tokens announced need 3026 bytes, the file has 3024"),
        (8, [10], "byte 1044: 10 tokens announced"),
    ],
)
def test_defects_of_the_header_are_named_with_their_byte(shard, offset, values, found):
    path, _ = shard
    patch(path, offset, values)
    with pytest.raises(ShardError, match=found) as caught:
        read_header(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 3, 1023])
def test_a_file_that_ends_inside_the_header(shard, size):
    path, _ = shard
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ShardError, match=f"byte {size}: the file ends inside"):
        read_header(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ShardError, match="No such file"):
        read_header(tmp_path / "absent.bin")
    with pytest.raises(ShardError, match="Is a directory"):
        open_shard(tmp_path)


def test_a_shard_without_tokens_is_refused(shard):
    path, _ = shard
    path.write_bytes(path.read_bytes()[:HEADER_BYTES])
    patch(path, 8, [0])
    assert read_header(path) == 0
    with pytest.raises(ShardError, match="without tokens"):
        open_shard(path)


def test_a_token_outside_the_vocabulary_is_found_by_check_only(shard):
    path, _ = shard
    patch(path, HEADER_BYTES + 2 * 417, [50257], dtype="<u2")
    assert len(open_shard(path)) == 1000
    with pytest.raises(ShardError, match=f"byte {HEADER_BYTES + 834}: token 50257 at position 417"):
        check_shard(path)


@pytest.mark.parametrize("tokens", [[], [50257], [-1], [[1, 2]], [0.5]])
def test_tokens_that_do_not_fit_are_not_written(tmp_path, tokens):
    with pytest.raises(ShardError):
        write_shard(tmp_path / "x.bin", tokens)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_shard(shard, monkeypatch):
    path, tokens = shard
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_shard(path, tokens[:10])
    assert read_header(path) == 1000 and [p.name for p in path.parent.iterdir()] == [path.name]
