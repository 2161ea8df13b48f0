"""FineWeb by download: complete and verified, or one clear line and no half file under a final name."""

import errno
import fcntl
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from huggingface_hub import hf_hub_download

from harness.cli import main
from harness.errors import UserError
from harness.tokens import hub, transfer
from harness.tokens import prepare as data
from harness.tokens.manifest import read_manifest
from harness.tokens.shards import open_shard, write_shard

SPEC = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hub_server)

VAL, FIRST, SECOND, THIRD = "fineweb_val_000000.bin", *(f"fineweb_train_{n:06d}.bin" for n in (1, 2, 3))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Bytes of four shards of some kilobytes, by name."""
    folder, generator = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    files = [write_shard(folder / name, generator.integers(0, 50257, 30_000)) for name in (VAL, FIRST, SECOND, THIRD)]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def server(shards, monkeypatch):
    """A running Hub that HF_ENDPOINT points to, and no pauses between attempts."""
    monkeypatch.setattr(hub, "PAUSE", 0.0)
    with hub_server.serving(shards) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")  # which must never be sent: the data set is public
        yield running


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "fineweb10B"


def finals(folder):
    """Names of the files that a train script or a reader of the manifest would see."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def first_byte(asked):
    """Where a Range header begins."""
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def only_line(caught):
    """The message of a UserError, which must be one line."""
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_server_speaks_the_protocol_of_the_library(server, shards, tmp_path):
    got = hf_hub_download(
        hub.REPOSITORY, FIRST, repo_type="dataset", local_dir=tmp_path, endpoint=server.url, token=False
    )
    assert Path(got).read_bytes() == shards[FIRST]


def test_shards_arrive_whole_and_the_manifest_pins_them(server, shards, folder):
    manifest = data.ensure_fineweb(folder, 2, progress=False)
    assert finals(folder) == [FIRST, SECOND, VAL, "manifest.json"]
    assert all((folder / name).read_bytes() == shards[name] for name in (VAL, FIRST, SECOND))
    assert not list(folder.glob(".*"))
    assert manifest == read_manifest(folder) == data.check(folder)
    assert manifest.name == "fineweb10B" and manifest.revision == hub_server.COMMIT
    assert manifest.tokens("train") == 60_000 and manifest.entropy_nats is None
    assert all(token is None for *_, token in server.requests)


def test_what_is_there_is_used_without_a_network(server, folder, monkeypatch):
    manifest = data.ensure_fineweb(folder, 2, progress=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert data.ensure_fineweb(folder, 2, progress=False) == manifest
    assert data.ensure_fineweb(folder, 1, progress=False) == manifest


def test_more_shards_later_stay_with_the_pinned_revision(server, folder):
    data.ensure_fineweb(folder, 1, progress=False)
    server.requests.clear()
    data.ensure_fineweb(folder, 3, progress=False)
    assert finals(folder) == [FIRST, SECOND, THIRD, VAL, "manifest.json"]
    assert server.requests[0][1].startswith(f"/api/datasets/{hub.REPOSITORY}/revision/{hub_server.COMMIT}")
    assert server.ranges(FIRST) == [] and server.ranges(THIRD) == [None]


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_a_connection_cut_in_the_middle_resumes_by_range(server, shards, folder, fault):
    server.faults[FIRST] = [fault, fault]
    data.ensure_fineweb(folder, 1, progress=False)
    asked = server.ranges(FIRST)
    assert len(asked) == 3 and asked[0] is None and (folder / FIRST).read_bytes() == shards[FIRST]
    if fault == "cut":
        half = len(shards[FIRST]) // 2
        assert first_byte(asked[1]) == half < first_byte(asked[2])


def test_a_later_call_resumes_what_an_earlier_one_left(server, shards, folder):
    server.faults[FIRST] = ["cut"] + [503] * hub.ATTEMPTS
    with pytest.raises(UserError) as caught:
        data.ensure_fineweb(folder, 1, progress=False)
    assert "503" in only_line(caught) and FIRST not in finals(folder)
    server.requests.clear()
    server.faults.clear()
    data.ensure_fineweb(folder, 1, progress=False)
    [asked] = server.ranges(FIRST)
    assert 0 < first_byte(asked) <= len(shards[FIRST]) // 2
    assert (folder / FIRST).read_bytes() == shards[FIRST]


def test_a_server_that_ignores_ranges(server, shards, folder):
    server.faults[FIRST] = ["cut", "whole"]
    data.ensure_fineweb(folder, 1, progress=False)
    assert (folder / FIRST).read_bytes() == shards[FIRST]


def test_a_corrupted_body_is_refused_and_fetched_again(server, shards, folder):
    server.faults[FIRST] = ["corrupt"]
    data.ensure_fineweb(folder, 1, progress=False)
    assert server.ranges(FIRST) == [None, None] and (folder / FIRST).read_bytes() == shards[FIRST]


def test_a_body_that_stays_corrupted_ends_in_one_line(server, folder):
    server.faults[FIRST] = ["corrupt"] * 20
    with pytest.raises(UserError) as caught:
        data.ensure_fineweb(folder, 1, progress=False)
    assert f"copies of {FIRST} did not have the SHA-256" in only_line(caught)
    assert FIRST not in finals(folder) and not list(folder.glob(f".{FIRST}*"))


@pytest.mark.parametrize(
    "status, said",
    [(401, "needs no token"), (403, "needs no token"), (404, "has no"), (500, "answers 500"), (503, "503")],
)
@pytest.mark.parametrize("where", ["api", FIRST])
def test_refusals_end_in_one_line(server, folder, where, status, said):
    server.faults[where] = [status] * 20
    with pytest.raises(UserError) as caught:
        data.ensure_fineweb(folder, 1, progress=False)
    assert said in only_line(caught) and str(status) in only_line(caught)
    assert FIRST not in finals(folder)


def test_an_overloaded_server_is_asked_again(server, folder):
    server.faults[FIRST] = [503, 500]
    assert data.ensure_fineweb(folder, 1, progress=False).tokens("train") == 30_000


def test_a_shard_that_the_hub_does_not_have(server, folder):
    with pytest.raises(UserError, match=r"has no fineweb_train_000004\.bin"):
        data.ensure_fineweb(folder, 4, progress=False)
    assert finals(folder) == []


@pytest.mark.parametrize("count", [0, 104])
def test_a_number_of_shards_that_fineweb_does_not_have(folder, count):
    with pytest.raises(UserError, match="1 to 103"):
        data.ensure_fineweb(folder, count)


def test_no_route(folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        data.ensure_fineweb(folder, 1, progress=False)
    assert "no connection to http://127.0.0.1:9" in only_line(caught) and finals(folder) == []


def test_a_server_that_is_no_hub(server, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/elsewhere")
    with pytest.raises(UserError, match="404"):
        data.ensure_fineweb(folder, 1, progress=False)


def test_a_file_of_the_hub_that_is_no_shard(server, folder):
    server.files[FIRST] = b"\x00" * 5000
    with pytest.raises(UserError, match=r"fineweb_train_000001\.bin on the Hub is not a token shard: byte 0: magic"):
        data.ensure_fineweb(folder, 1, progress=False)
    assert FIRST not in finals(folder)


def test_too_little_space_is_seen_before_anything_is_fetched(server, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10, 9, 1_000_000))
    with pytest.raises(UserError) as caught:
        data.ensure_fineweb(folder, 2, progress=False)
    assert "0.0 GB free" in only_line(caught) and server.ranges(FIRST) == []


def test_a_disk_that_fills_up_on_the_way(server, folder, monkeypatch):
    def full(url, out, *_):
        out.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub, "_go_on", full)
    with pytest.raises(UserError) as caught:
        data.ensure_fineweb(folder, 1, progress=False)
    assert "the disk is full" in only_line(caught) and finals(folder) == []


def test_a_failure_keeps_the_shards_that_arrived(server, folder):
    server.faults[SECOND] = [404]
    with pytest.raises(UserError):
        data.ensure_fineweb(folder, 2, progress=False)
    server.faults.clear()
    assert data.ensure_fineweb(folder, 2, progress=False) == data.check(folder)


def test_one_failure_stops_the_other_transfers(server, tmp_path, shards):
    stop = threading.Event()
    file = hub.list_files()[FIRST]
    with transfer._meters([file], False, stop) as meters:
        stop.set()
        with pytest.raises(transfer.Stopped):
            hub.fetch(file, tmp_path, meters.of(file))
    assert not (tmp_path / FIRST).exists()


def test_a_damaged_shard_is_found_by_check_and_fetched_again(server, shards, folder):
    manifest = data.ensure_fineweb(folder, 2, progress=False)
    whole = shards[SECOND]
    (folder / SECOND).write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(UserError, match=r"fineweb_train_000002\.bin is not the file of the manifest"):
        data.check(folder)
    (folder / SECOND).write_bytes(whole[:5000])
    with pytest.raises(UserError, match="30000 tokens announced"):
        data.check(folder)
    assert data.ensure_fineweb(folder, 2, progress=False) == manifest == data.check(folder)


def test_shards_fetched_by_other_means_are_adopted(server, shards, folder):
    folder.mkdir()
    (folder / FIRST).write_bytes(shards[FIRST])
    data.ensure_fineweb(folder, 1, progress=False)
    assert server.ranges(FIRST) == [] and server.ranges(VAL) == [None]


def test_other_corpora_are_left_alone(server, folder):
    folder.mkdir()
    write_shard(folder / FIRST, np.arange(100))
    with pytest.raises(UserError, match=r"fineweb_train_000001\.bin is not FineWeb's"):
        data.ensure_fineweb(folder, 1, progress=False)
    write_shard(folder / VAL, np.arange(100))
    manifest = data.describe(folder, "books", "a shelf")
    assert data.check(folder) == manifest and manifest.tokens("val") == 100
    with pytest.raises(UserError, match="holds books, not FineWeb"):
        data.ensure_fineweb(folder, 1, progress=False)
    assert len(open_shard(folder / FIRST)) == 100


def test_check_names_a_shard_that_is_gone(server, folder):
    data.ensure_fineweb(folder, 2, progress=False)
    (folder / "fineweb_train_000002.bin").unlink()
    with pytest.raises(UserError, match=r"fineweb_train_000002\.bin is missing, though the manifest lists it"):
        data.check(folder)


def test_check_names_a_shard_that_the_manifest_does_not(server, folder):
    data.ensure_fineweb(folder, 1, progress=False)
    write_shard(folder / THIRD, np.arange(100))
    with pytest.raises(UserError, match=r"fineweb_train_000003\.bin is not in the manifest"):
        data.check(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"files": {"../x.bin": {}}}', "[" * 100_000])
def test_a_manifest_that_is_none(folder, text):
    folder.mkdir()
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="is not a manifest") as caught:
        data.check(folder)
    only_line(caught)


@pytest.mark.parametrize("name", ["bad\x1b]0;x\x07", "a\nb", ["books"], None])
def test_a_manifest_whose_name_cannot_be_shown(folder, name):
    folder.mkdir()
    text = json.dumps({"name": name, "origin": "local", "revision": "", "digest": "", "files": {}})
    (folder / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="is not a manifest") as caught:
        data.check(folder)
    only_line(caught)


@pytest.mark.parametrize("name", ["a\nb", " ", "\x1b[31mred"])
def test_a_corpus_needs_a_name_that_can_be_shown(folder, name):
    data.ensure_synthetic(folder)
    with pytest.raises(UserError, match="needs a name that can be shown"):
        data.describe(folder, name)


def test_an_edited_manifest(server, folder):
    data.ensure_fineweb(folder, 1, progress=False)
    content = json.loads((folder / "manifest.json").read_text())
    content["files"][FIRST]["tokens"] += 1
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="was edited"):
        data.check(folder)


def test_two_downloads_into_one_folder_take_turns(server, folder):
    results = []
    pair = [
        threading.Thread(target=lambda: results.append(data.ensure_fineweb(folder, 2, progress=False))) for _ in "ab"
    ]
    [thread.start() for thread in pair]
    [thread.join(30) for thread in pair]
    assert len(results) == 2 and results[0] == results[1]
    assert server.ranges(FIRST) == [None]


def part_of(folder, name, at_least=1):
    """The part file of a shard once it holds so many bytes."""
    for _ in range(600):
        part = next(folder.glob(f".{name}*.part"), None)
        if part and part.stat().st_size >= at_least:
            return part
        time.sleep(0.05)
    raise AssertionError(f"no part of {name} in 30 s")


@pytest.mark.parametrize("fault", ["slow", "hung"])
def test_control_c_ends_at_once_and_keeps_what_arrived(server, shards, folder, fault):
    server.faults[FIRST] = [fault]
    command = [sys.executable, "-c", "from harness.cli import main; main()", "data", "--shards", "1"]
    process = subprocess.Popen([*command, "--data-dir", str(folder)], stderr=subprocess.PIPE, text=True)
    part = part_of(folder, FIRST, 2048)
    since = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert time.monotonic() - since < 10  # a second on a machine of one's own
    assert process.returncode == 130 and "Traceback" not in told and told.strip().endswith("stopped")
    assert part.read_bytes() == shards[FIRST][: part.stat().st_size] and FIRST not in finals(folder)


def test_what_arrives_is_on_disk_at_once(server, folder):
    server.faults[FIRST] = ["slow"]
    thread = threading.Thread(target=data.ensure_fineweb, args=(folder, 1, False), daemon=True)
    thread.start()
    first = part_of(folder, FIRST).stat().st_size
    assert first < 30_000  # of 60 kB: not one block of megabytes
    assert part_of(folder, FIRST, first + 1).stat().st_size > first


def test_piped_it_says_how_fast_and_how_long(server, folder, monkeypatch, capsys):
    monkeypatch.setattr(transfer, "LINE_EVERY_S", 0.5)
    server.faults[FIRST] = ["slow"]
    data.ensure_fineweb(folder, 1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3 and all(re.fullmatch(LINE, line) for line in lines), lines


LINE = r"FineWeb: 0\.\d of 0\.1 MB, 0\.\d\d MB/s, (0:\d\d:\d\d remaining|waiting)"


def test_a_folder_in_other_hands_is_said_at_once(server, folder, capsys):
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    thread = threading.Thread(target=data.ensure_fineweb, args=(folder, 1, False))
    thread.start()
    said = ""
    for _ in range(200):
        time.sleep(0.05)
        said += capsys.readouterr().err
        if said:
            break
    os.close(handle)
    thread.join(30)
    assert f"another process is at work in {folder}" in said and FIRST in finals(folder)


def test_the_command_fetches_checks_and_tells(server, folder):
    fetched = CliRunner().invoke(main, ["data", "--shards", "1", "--data-dir", str(folder)])
    assert fetched.exit_code == 0, fetched.output
    assert "fineweb10B" in fetched.output and "30,000 train tokens" in fetched.output
    assert CliRunner().invoke(main, ["data", "--check", "--data-dir", str(folder)]).exit_code == 0
    (folder / FIRST).unlink()
    broken = CliRunner().invoke(main, ["data", "--check", "--data-dir", str(folder)])
    assert broken.exit_code == 2 and "is missing" in broken.output and "Traceback" not in broken.output


def test_the_command_makes_the_synthetic_source_and_describes_a_corpus(tmp_path):
    made = CliRunner().invoke(main, ["data", "--synthetic", "--data-dir", str(tmp_path / "synthetic")])
    assert made.exit_code == 0 and "entropy 1.87" in made.output
    write_shard(tmp_path / FIRST, np.arange(100))
    write_shard(tmp_path / VAL, np.arange(100))
    described = CliRunner().invoke(main, ["data", "--describe", "shelf", "--data-dir", str(tmp_path)])
    assert described.exit_code == 0 and read_manifest(tmp_path).name == "shelf"
    both = CliRunner().invoke(main, ["data", "--synthetic", "--check", "--data-dir", str(tmp_path)])
    assert both.exit_code == 2
