"""FineWeb on the Hugging Face Hub: what is there, and one shard at a time, resumed where it broke off and verified.

`hf_hub_download` drops what has arrived when a transfer fails, and compares sizes only; the library's `http_get` writes
10 MB at a time, which at a slow line shows nothing and keeps nothing for minutes. A shard has 200 MB, so the transfer
(plain HTTP, which mirrors speak too) writes each piece as it comes into a part file that outlives the process, and the
bytes are held against the SHA-256 that the Hub states. The data set is public: no token is sent.
"""

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, logging

from harness.errors import UserError
from harness.tokens.manifest import sha256_of
from harness.tokens.shards import ShardError, check_shard

REPOSITORY = "kjj0/fineweb10B-gpt2"
ANSWER_WITHIN = 20.0  # seconds for the Hub's answer to a question; transfers have the library's own limits
ATTEMPTS = 4  # times that a broken transfer is resumed, and a corrupted one begun again
CUT_SHORT = "the connection ended before all had arrived"
PAUSE = 1.0  # seconds before the second attempt, doubled for each further one

logging.set_verbosity_error()  # a failure is told once, by `explained`


@dataclass(frozen=True)
class RemoteFile:
    """One file of a pinned revision: its name, size in bytes and SHA-256."""

    name: str
    size: int
    sha256: str
    revision: str


def endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def list_files(revision: str | None = None) -> dict[str, RemoteFile]:
    """The shards of the data set at a commit (default: the newest), by name. Raises UserError."""
    try:
        api = HfApi(endpoint=endpoint(), token=False)
        info = api.dataset_info(REPOSITORY, revision=revision, files_metadata=True, timeout=ANSWER_WITHIN)
    except (HTTPError, OSError) as error:
        raise explained(error, REPOSITORY) from error
    files = [file for file in info.siblings or () if file.lfs is not None and file.rfilename.endswith(".bin")]
    return {file.rfilename: RemoteFile(file.rfilename, file.lfs.size, file.lfs.sha256, info.sha) for file in files}


def fetch(file: RemoteFile, folder: Path, meter) -> dict:
    """Bring `file` into `folder` under its own name once every byte of it has proved right; its entry of a manifest.

    `meter` is a `transfer.Meter`. What has arrived of a broken transfer stays in a hidden part file and is resumed by
    the next call. Raises UserError.
    """
    part = folder / f".{file.name}.{file.sha256[:8]}.part"
    for _ in range(ATTEMPTS):
        _receive(file, part, meter)
        if sha256_of(part) == file.sha256:
            break
        part.unlink()
    else:
        found = f"{ATTEMPTS} copies of {file.name} did not have the SHA-256 that the Hub states"
        raise UserError(f"{found}: {endpoint()} or something before it alters the data")
    try:
        tokens = check_shard(part)
    except ShardError as error:
        part.unlink()
        raise UserError(f"{file.name} on the Hub is not a token shard: byte {error.offset}: {error.defect}") from error
    os.replace(part, folder / file.name)
    return {"sha256": file.sha256, "tokens": tokens}


def _receive(file: RemoteFile, part: Path, meter) -> None:
    """Fill `part` up to the size of `file`, going on after every break of the connection."""
    url = hf_hub_url(REPOSITORY, file.name, repo_type="dataset", revision=file.revision, endpoint=endpoint())
    for attempt in range(ATTEMPTS):
        try:
            with part.open("ab", buffering=0) as out:
                _go_on(url, out, file.size, meter)
            return
        except (HTTPError, OSError) as error:
            if attempt == ATTEMPTS - 1 or not _may_pass(error):
                raise explained(error, file.name) from error
            time.sleep(PAUSE * 2**attempt)


def _go_on(url: str, out: BinaryIO, size: int, meter) -> None:
    """Append what is missing of `size` bytes, each piece as it arrives. Raises HTTPError, or OSError if some lack."""
    if out.tell() > size:
        out.truncate(0)
    have = out.seek(0, os.SEEK_END)
    meter.begin(have)
    if have == size:
        return
    headers = build_hf_headers(token=False) | {"Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if have and response.status_code == 200:  # the server ignores ranges and begins anew
            out.truncate(0)
            meter.begin(0)
        for piece in response.iter_bytes():
            out.write(piece)
            meter.update(len(piece))
    if (got := out.seek(0, os.SEEK_END)) != size:
        raise OSError(f"{CUT_SHORT}: {got} of {size} bytes")


def _may_pass(error: Exception) -> bool:
    """Whether trying again can help: a cut connection or an overloaded server, not a refusal or a full disk."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, HTTPError) or CUT_SHORT in str(error)


def explained(error: Exception, what: str) -> UserError:
    """The one line for a failure of network, Hub or disk."""
    where = endpoint()
    if isinstance(error, HfHubHTTPError):
        return UserError(_refusal(error.response.status_code, what, where))
    if isinstance(error, OfflineModeIsEnabled):
        return UserError(
            f"HF_HUB_OFFLINE is set and {what} is not on disk: unset it, or use `harness data --synthetic`"
        )
    if isinstance(error, HTTPError):
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(
            f"no connection to {where} for {what} ({reason}): check the network or HF_ENDPOINT and run this again, "
            "what has arrived is kept; without a network there is `harness data --synthetic`"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return UserError(f"the disk is full before all of {what} has arrived: free some space and run this again")
    return UserError(f"{what} could not be fetched: {(str(error).splitlines() or [type(error).__name__])[0]}")


def _refusal(status: int, what: str, where: str) -> str:
    if status in (401, 403):
        return (
            f"{where} refuses {what} ({status}) though it is public and needs no token: check HF_ENDPOINT and proxies"
        )
    if status == 404:
        return f"{where} has no {what} (404): check HF_ENDPOINT, or whether the data set has moved"
    if status == 429:
        return (
            f"{where} limits the rate of requests (429): wait some minutes and run this again, what has arrived is kept"
        )
    return f"{where} answers {status} for {what}: try again later, what has arrived is kept"
