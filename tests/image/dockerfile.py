"""A Dockerfile read as its instructions, and its steps done in a root filesystem where there is no Docker."""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, its text on one line) in order; comments and continued lines are resolved."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def ignored(name: str, rules: list[str]) -> bool:
    """Whether .dockerignore keeps a top-level name out: the last rule that matches decides."""
    out = False
    for rule in rules:
        if fnmatch(name, rule.removeprefix("!")):
            out = not rule.startswith("!")
    return out


@dataclass
class Build:
    """A build of the Dockerfile's steps below `root`, as Docker would do them; `arguments` are its --build-arg."""

    root: Path
    context: Path
    arguments: dict[str, str]
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/bin"}
    )
    cwd: str = "/"
    user: str = "0"
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])

    def do(self, instruction: str, text: str) -> None:
        """Do one instruction. Raises CalledProcessError with a step's output when it fails."""
        getattr(self, f"_{instruction.lower()}", lambda text: None)(text)

    def _arg(self, text: str) -> None:
        name, _, default = text.partition("=")
        self.env[name] = self.arguments.get(name, default.strip('"'))

    def _env(self, text: str) -> None:
        for assignment in shlex.split(text):
            name, _, value = assignment.partition("=")
            self.env[name] = re.sub(r"\$(\w+)", lambda match: self.env.get(match[1], ""), value)

    def _workdir(self, text: str) -> None:
        self.cwd = text
        (self.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _user(self, text: str) -> None:
        self.user = text

    def _shell(self, text: str) -> None:
        self.shell = json.loads(text)

    def _copy(self, text: str) -> None:
        *sources, target = text.split()
        place = self.root / self.cwd.lstrip("/") / target
        for source in sources:
            found = self.context / source
            if found.is_dir():
                shutil.copytree(found, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(found, place)

    def _run(self, text: str) -> None:
        self.step([*self.shell, text])

    def step(self, command: list[str]) -> str:
        """Run a command inside, as the instructions so far say; its output."""
        inside = ["sh", "-c", f'cd {self.cwd} && exec "$@"', "sh", *command]
        user = ["--userspec", f"{self.user}:{self.user}"] if self.user != "0" else []
        done = subprocess.run(
            ["chroot", *user, str(self.root), *inside], env=self.env, stdout=-1, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)[:200]}: {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout


AUTHORITIES = "etc/ssl/registries.crt"  # a name of its own: installing certificates inside writes the usual one anew


def borrow_registries(root: Path) -> dict[str, str]:
    """Let pip and apt inside reach what they reach outside: names, mirrors, this machine's pip and its certificates.

    Returns the variables that belong to it.
    """
    for path in map(
        Path,
        ("/etc/hosts", "/etc/resolv.conf", "/etc/pip.conf", "/etc/apt/apt.conf.d", "/etc/ssl/certs", "/etc/xdg/pip"),
    ):
        target = root / str(path).lstrip("/")
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, ignore_dangling_symlinks=True)
        elif path.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    wanted = re.compile(r"(https?|no)_proxy|PIP_\w+", re.IGNORECASE)
    found = {name: value for name, value in os.environ.items() if wanted.fullmatch(name)}
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        shutil.copy(bundle, root / AUTHORITIES)
        found |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), f"/{AUTHORITIES}")
    return found
