"""Facts about strangers' scripts, from one guarded process that reads them all; when one kills it, another starts."""

import atexit
import contextlib
import hashlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from timing.run import Run
from timing.text import printable

ROOT = Path(__file__).resolve().parents[3]
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from harness.referee.source.worker import main; main()"
LARGEST_SOURCE = 8_000_000
PATIENCE_S = 30
KEPT = 2_000

_answers: dict[str, dict] = {}


def read_source(script: str, helpers: Iterable[tuple[str, str]] = ()) -> dict:
    """Facts about a script and its helper modules (name and text of each), as `worker` gives them; {"error": why} when
    they cannot be had. A source is read once, whoever asks: answers are kept by the hash of its text."""
    modules = {"": script}
    for name, text in helpers:
        module = Path(name).name.removesuffix(".py")
        if module in modules:  # no name, or one for two texts: which of them the script meant, its log does not tell
            return {"error": f"two modules of it are called {printable(module, 80)!r}"}
        modules[module] = text
    if sum(map(len, modules.values())) > LARGEST_SOURCE:
        return {"error": f"larger than {LARGEST_SOURCE // 1_000_000} MB"}
    request = json.dumps(modules, sort_keys=True).encode()
    return _kept(hashlib.sha256(request).hexdigest(), lambda: _worker.ask(request))


def read_loader(script: str) -> dict[str, str]:
    """Digests of the functions that load the data in a script of ours, by name; {} where they cannot be had."""
    key = f"loader {hashlib.sha256(script.encode()).hexdigest()}"
    return _kept(key, lambda: _worker.ask(json.dumps([script]).encode())).get("loader", {})


def read_run(run: Run) -> dict | None:
    """Facts about the script in a log, None if it holds none; read once for all logs of one source."""
    if run.source is None:
        return None
    return _kept(run.source_sha256, lambda: read_source(run.source, run.helpers))


def code_of(run: Run) -> str | None:
    """What tells one code from another, however spelt: the fingerprint of its syntax tree, or the hash of a source that
    cannot be parsed; None without a source."""
    facts = read_run(run)
    return facts and facts.get("code", run.source_sha256)


def _kept(key: str, answer) -> dict:
    if key not in _answers:
        while len(_answers) >= KEPT:
            _answers.pop(next(iter(_answers)))
        _answers[key] = answer()
    return _answers[key]


class Worker:
    """The guarded process, started at the first question."""

    def __init__(self):
        self._process: subprocess.Popen | None = None

    def ask(self, request: bytes) -> dict:
        """The answer to one message. A process that dies of it, or does not answer in time, is not asked again."""
        try:
            process = self._running()
            process.stdin.write(len(request).to_bytes(8, "big") + request)
            process.stdin.flush()
            deadline = time.monotonic() + PATIENCE_S
            length = int.from_bytes(_read(process.stdout, 8, deadline), "big")
            return json.loads(_read(process.stdout, length, deadline))
        except TimeoutError:
            self.stop()
            return {"error": f"not read within {PATIENCE_S} s"}
        except (OSError, EOFError, ValueError):
            self.stop()
            return {"error": "the parser gave up on it"}

    def _running(self) -> subprocess.Popen:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", BOOT, str(ROOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath)},
            )
        return self._process

    def stop(self) -> None:
        """End the process, if there is one; the next question starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()


def _read(pipe, length: int, deadline: float) -> bytes:
    """Exactly `length` bytes. Raises TimeoutError past the deadline, EOFError when the pipe ends before."""
    held = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(held) < length:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            piece = os.read(pipe.fileno(), min(length - len(held), 1 << 20))
            if not piece:
                raise EOFError
            held += piece
    return bytes(held)


_worker = Worker()
atexit.register(_worker.stop)
