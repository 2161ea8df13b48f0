"""The byte strings of GPT-2's tokens, for a script that looks into them: the file `gpt2.tiktoken` of a data folder.

A line a token: the string in base64 and its number, as OpenAI's packages ship it. It is made of `vocab.json` in the
Hub's openai-community/gpt2, whose letters stand for bytes: those that can be printed for themselves, the 68 others for
the letters from U+0100 on (`bytes_to_unicode` in https://github.com/openai/gpt-2, src/encoder.py).
"""

import base64
import hashlib
import json
from pathlib import Path

from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from harness.errors import UserError
from harness.files import write_whole
from harness.tokens import hub
from harness.tokens.manifest import GPT2_TOKENS

REPOSITORY, VOCABULARY = "openai-community/gpt2", "vocab.json"
SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"  # as openai-whisper 20250625 has it
END_OF_TEXT = "<|endoftext|>"  # stands for no bytes


def ensure_gpt2_tokens(data_dir: Path) -> Path:
    """`gpt2.tiktoken` in a data folder, fetched if it is not there. Raises UserError."""
    path = data_dir / GPT2_TOKENS
    if path.is_file():
        if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
            raise UserError(
                f"{path} does not hold GPT-2's tokens (SHA-256 differs): remove it, and it is fetched again"
            )
        return path
    try:
        text = as_tiktoken(json.loads(_vocabulary()))
    except (ValueError, AttributeError, KeyError, TypeError):
        text = b""
    if hashlib.sha256(text).hexdigest() != SHA256:
        raise UserError(f"{hub.endpoint()} has another {VOCABULARY} in {REPOSITORY} than GPT-2's")
    try:
        return write_whole(path, text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def as_tiktoken(vocabulary: dict[str, int]) -> bytes:
    """The lines of `gpt2.tiktoken` for the numbers of the tokens' spellings."""
    byte_of = letters()
    tokens = sorted((number, spelling) for spelling, number in vocabulary.items() if spelling != END_OF_TEXT)
    strings = ((number, bytes(byte_of[letter] for letter in spelling)) for number, spelling in tokens)
    return b"".join(b"%s %d\n" % (base64.b64encode(string), number) for number, string in strings)


def letters() -> dict[str, int]:
    """The byte that each letter of a spelling stands for."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _vocabulary() -> bytes:
    url = hf_hub_url(REPOSITORY, VOCABULARY, endpoint=hub.endpoint())
    try:
        answer = get_session().get(
            url, headers=build_hf_headers(token=False), timeout=hub.ANSWER_WITHIN, follow_redirects=True
        )
        hf_raise_for_status(answer)
    except (HTTPError, OSError) as error:
        raise hub.explained(error, f"{VOCABULARY} of {REPOSITORY}") from error
    return answer.content
