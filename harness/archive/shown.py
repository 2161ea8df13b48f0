"""Which run proves a frozen script at real size: `[shown]` in `record.toml`, and the search for it in `logs/`.

A script that changed after its last run on a GPU has gone to NaN once. So a frozen script says what ran it: a folder in
`logs/`, its machine and steps, or that nothing has yet, and why. A script whose comments and docstrings alone have
changed since is still the one that ran.
"""

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

from harness.archive.code import ran
from harness.archive.run_folder import FACTS, SHOWN
from harness.errors import UserError

NONE = "none"
NOT_YET = "no GPU has run this script yet"


@dataclass(frozen=True)
class Shown:
    """The proof of a frozen script. `run` is a folder in the record's `logs/`, or "none" with a `reason`; `machine`
    such as "2x NVIDIA H200"; `steps` how many it trained."""

    run: str = NONE
    machine: str = ""
    steps: int = 0
    reason: str = NOT_YET

    @property
    def text(self) -> str:
        """In a few words: `2,330 steps on 2x NVIDIA H200`, or the reason why not."""
        return f"{self.steps:,} steps on {self.machine}" if self.run != NONE else f"not at real size: {self.reason}"


def problems(shown: dict) -> list[str]:
    """What is wrong with a table [shown] whose values have the right types."""
    if "run" not in shown:
        return ["missing key shown.run"] if shown else []
    wanted = {"run", "reason"} if shown["run"] == NONE else {"run", "machine", "steps"}
    wrong = [f"missing key shown.{name}" for name in sorted(wanted - shown.keys())]
    wrong += [f"shown.{name} does not go with shown.run = {shown['run']!r}" for name in sorted(shown.keys() - wanted)]
    if not re.fullmatch(r"[\w.-]+", shown["run"]) or shown["run"] in (".", ".."):
        wrong.append(f"shown.run must be the name of a folder in logs/, not {shown['run']!r}")
    return wrong


def proof(logs: Path, script: Path, known: Shown | None = None) -> Shown:
    """What shows most of the finished runs in `logs` of this script, be it in other words, at real size and on GPUs: a
    whole run rather than a shortened one, then one that `shown.csv` has a pace of, then the newest. Without one, the
    reason that is `known`, if it is one."""
    none = known if known and known.run == NONE else Shown()
    return max(_runs(logs, script), default=(none,))[-1]


def _runs(logs: Path, script: Path):
    """The runs that show the script, each behind what it is ranked by."""
    paced = _paced(logs.parents[1] / SHOWN)
    for path in logs.glob(f"*/{FACTS}"):
        facts, name = read_run(path), path.parent.name
        gpu = facts.get("machine", {}).get("gpu")
        finished = gpu and facts.get("outcome") == "finished" and facts.get("fidelity") != "smoke"
        if finished and ran(path.parent, facts, script):
            shown = Shown(name, f"{facts['gpus']}x {gpu}", last_step(facts), "")
            yield facts.get("fidelity") != "shortened", name in paced, name, shown


def _paced(table: Path) -> set[str]:
    """The runs whose pace is known: those that had their cards to themselves."""
    if not table.is_file():
        return set()
    with table.open(newline="", encoding="utf-8") as file:
        return {row["run"] for row in csv.DictReader(file) if row["median_ms"]}


def last_step(facts: dict) -> int:
    """The last step that the launcher heard of."""
    return max(facts.get("witness", {}).get("step", []), default=0)


def read_run(path: Path) -> dict:
    """A run's facts. Raises UserError for a file that is not JSON."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return facts if isinstance(facts, dict) else {}


def as_toml(shown: Shown) -> str:
    """The table, as it is written into `record.toml`."""
    if shown.run == NONE:
        return f'[shown]\nrun = "{NONE}"\nreason = {json.dumps(shown.reason)}\n'
    return f'[shown]\nrun = "{shown.run}"\nmachine = {json.dumps(shown.machine)}\nsteps = {shown.steps}\n'


def with_shown(toml: str, shown: Shown) -> str:
    """The text of a `record.toml` with this table in place of the one it has, or before [frozen]."""
    toml, found = re.subn(r"^\[shown\][^\n]*\n(?:(?!^\[).*\n?)*", as_toml(shown) + "\n", toml, count=1, flags=re.M)
    return toml if found else re.sub(r"^\[frozen\]", as_toml(shown) + "\n[frozen]", toml, count=1, flags=re.M)
