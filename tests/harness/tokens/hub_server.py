"""A Hugging Face Hub of a few kilobytes on localhost, with the failures that a real one and the way to it can have."""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPOSITORY = "kjj0/fineweb10B-gpt2"
MODEL = "openai-community/gpt2"
PIECE = 1024  # bytes sent at a time
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` (name -> bytes) as a public dataset, and as the files of a model.

    `faults[name]` is a queue of what goes wrong with the next GETs of a file, `faults["api"]` of the listing: an HTTP
    status, "cut" (the connection closes half-way), "reset" (it is torn down), "corrupt" (a flipped byte), "whole" (the
    range is ignored), "slow" (seconds for a file), "hung" (half of it, and then nothing for a minute).
    `requests` keeps (method, path, range, token) of everything asked.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = dict(files), defaultdict(list), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self, name):
        """The Range header of each GET of a file's bytes, in order (None: all of it)."""
        return [
            asked for method, path, asked, _ in self.requests if method == "GET" and path.startswith(f"/cdn/{name}")
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        self.server.requests.append(
            (self.command, self.path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        path = self.path.partition("?")[0]
        if re.fullmatch(rf"/api/datasets/{REPOSITORY}(/revision/\w+)?", path):
            self.listing()
        elif match := re.fullmatch(rf"/(?:datasets/{REPOSITORY}|{MODEL})/resolve/(\w+)/(.+)", path):
            self.resolve(match[2])
        elif path.startswith("/cdn/"):
            self.content(path.removeprefix("/cdn/"))
        else:
            self.fail(404, "RepoNotFound")

    def listing(self):
        if queue := self.server.faults["api"]:
            return self.fail(queue.pop(0))
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": "0" * 40, "lfs": {**lfs(data), "pointerSize": 134}}
            for name, data in self.server.files.items()
        ]
        info = {"id": REPOSITORY, "sha": COMMIT, "private": False, "gated": False, "tags": [], "siblings": siblings}
        self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def resolve(self, name):
        if name not in self.server.files:
            return self.fail(404, "EntryNotFound")
        data = self.server.files[name]
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(data)),
            "X-Linked-Etag": f'"{lfs(data)["sha256"]}"',
            "ETag": '"pointer"',
            "Location": f"http://localhost:{self.server.server_address[1]}/cdn/{name}",  # the Hub's CDN is another host
        }
        self.reply(302, b"", headers)

    def content(self, name):
        data, status = self.server.files[name], 200
        queue = self.server.faults[name]
        fault = queue.pop(0) if queue and self.command == "GET" else None
        if isinstance(fault, int):
            return self.fail(fault)
        headers = {"ETag": f'"{lfs(data)["sha256"]}"', "Accept-Ranges": "bytes"}
        if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and fault != "whole":
            status, start = 206, int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        if fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault in ("cut", "reset"):
            self.reply(status, data[: len(data) // 2], headers, announced=len(data))
            return self.hang_up(fault == "reset")
        if fault == "hung":
            self.reply(status, data[: len(data) // 2], headers, announced=len(data))
            return time.sleep(60)
        self.reply(status, data, headers, pause=0.1 if fault == "slow" else 0)

    def hang_up(self, hard):
        """Close the connection before all has been sent, with a RST if `hard`."""
        self.wfile.flush()
        self.close_connection = True
        if hard:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_WR)

    def fail(self, status, code=None):
        self.reply(status, b"{}", {"X-Error-Code": code} if code else {})

    def reply(self, status, body, headers, announced=None, pause=0):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        for start in range(0, len(body) if self.command == "GET" else 0, PIECE):
            self.wfile.write(body[start : start + PIECE])
            time.sleep(pause)

    def handle(self):
        """One connection; that the other side has gone is no news here."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_):
        """Say nothing."""


def lfs(data):
    """What the Hub tells of a file in large-file storage."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


@contextmanager
def serving(files):
    """A running Hub with these files, stopped at the end."""
    hub = Hub(files)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
