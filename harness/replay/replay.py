"""One run of a record, from its name to its folder: choose, settle, perform."""

import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from harness.archive.find import ROOT, find
from harness.archive.record import Record
from harness.archive.run_folder import LOG
from harness.errors import RunFailed, UserError
from harness.machine import Machine, this_machine
from harness.replay import crash, launch, runs, tokens
from harness.replay.anomaly import Breach, Watcher
from harness.replay.cache import compile_cache, suspect
from harness.replay.fidelity import in_company
from harness.replay.memory import lower
from harness.replay.outcome import Result
from harness.replay.plan import Options, Plan, make_plan
from harness.replay.progress import progress
from harness.replay.rehearsal import as_lines, rehearse
from harness.replay.signals import Interrupted
from harness.replay.torchrun import bearing, check_port, environment, torchrun_command
from harness.terminal import say
from harness.tokens.manifest import Manifest
from harness.version import commit, packages, release


@dataclass(frozen=True)
class Stage:
    """All that the runs of one plan share. `key` and `batch` are what its runs are found again by."""

    plan: Plan
    machine: Machine
    manifest: Manifest | None
    runs_dir: Path
    key: str
    batch: str
    console: Console


class Stopped(RunFailed):
    """A run that was ended over a breach, by the watcher or by the script itself; what it wrote is in `folder`."""

    def __init__(self, said: str, breach: Breach, folder: Path):
        super().__init__(said)
        self.breach, self.folder = breach, folder


def rehearsed(record: Record, options: Options, machine: Machine, console: Console) -> dict:
    """Say what a replay would do, and return that as data; nothing is run, fetched or written."""
    plan = make_plan(record, options, machine)
    announce([plan], console)
    facts = rehearse(plan, options, machine)
    for line in as_lines(facts):
        say(console, line, hang=16)
    return facts


def choose(name: str, options: Options, console: Console) -> Record:
    """The record that `name` means; how it was understood is said, and code from outside the archive is asked about."""
    found = find(name, nearest=options.nearest)
    if found.note:
        console.print(found.note)
    ask_trust(found.record, options.trust or options.dry_run)
    return found.record


def ask_trust(record: Record, trusted: bool) -> None:
    """Say that someone else's code will run, and ask. Raises UserError unless the answer is yes."""
    if trusted or record.folder.resolve().parent == ROOT:
        return
    warning = f"{record.script} is not of this archive: it will run with your rights on this machine"
    if not sys.stdin.isatty():
        raise UserError(f"{warning}; read it first, then add --trust")
    if not click.confirm(f"{warning}. Run it?", err=True):
        raise UserError("not run")


def usable_machine() -> Machine:
    """This machine. Raises UserError if torch cannot be used on it."""
    machine = this_machine()
    if machine.problem:
        raise UserError(f"torch cannot be used here: {machine.problem}")
    return machine


def settle(record: Record, options: Options, machine: Machine, console: Console) -> tuple[Plan, Manifest | None]:
    """Plan the runs, say what they will be worth, and get their data. Raises UserError for what cannot be run."""
    check_port(options.nodes)
    plan = make_plan(record, options, machine)
    announce([plan], console)
    return plan, fetch(plan, options, console)


def fetch(plan: Plan, options: Options, console: Console) -> Manifest | None:
    """The manifest of the plan's tokens, which are then on disk."""
    manifest, note = tokens.prepare(plan, options.repeat)
    if note:
        console.print(note)
    return manifest


def announce(plans: list[Plan], console: Console) -> None:
    """One line on what these replays are worth, before anything starts, and one for each oddity; none of them twice."""
    lines = []
    for plan in plans:
        lines += [f"{'' if plan.gpu or not plan.smoke else 'no CUDA here: '}{plan.label.sentence()}", *plan.notes]
    for line in dict.fromkeys(lines):
        console.print(line)


def perform(stage: Stage, run: int, title: str, watcher: Watcher | None = None, extra: dict | None = None) -> Result:
    """Run number `run` of a plan in a folder of its own; `extra` facts go into its `run.json`.

    Raises RunFailed, in words, if it does not finish, and of its kinds Stopped or Interrupted where that is why.
    """
    plan = stage.plan
    folder = runs.create(stage.runs_dir, plan.record.slug).absolute()
    arguments = plan.arguments(folder / LOG, run)
    line = torchrun_command(plan.record.script.absolute(), arguments, plan.ranks, folder, plan.nodes)
    if plan.settings is None:
        _offer_data(folder, plan.data_dir)
    env = environment(plan.ranks, plan.gpu) | compile_cache(stage.machine)
    job = launch.Job(line, folder, env, plan.stall_timeout_s, plan.nodes.rank == 0)
    clock = runs.Clock()
    with contextlib.ExitStack() as told:
        with progress(stage.console, title) as live:
            ended = launch.run(job, live, watcher, told)
        runs.adopt_log(folder)
        breaches = watcher.breaches if watcher else [ended.breach] if ended.breach else []
        facts = _facts(stage, run, job, ended) | (extra or {})
        facts |= {"breaches": [dataclasses.asdict(breach) for breach in breaches], **clock.facts()}
        facts |= {"witness": ended.witness.as_columns()} | ({"trouble": ended.trouble} if ended.trouble else {})
        runs.write(folder, facts)
    if ended.outcome != "finished":
        raise _failure(plan, ended, title, job)
    if ended.company:
        stage.console.print(f"{title}: another replay ran on this machine meanwhile; its time proves nothing")
    for breach in breaches:
        stage.console.print(f"{title} went on past step {breach.step}: {breach.reason}")
    return Result.of(folder, facts)


def _failure(plan: Plan, ended: launch.Ended, title: str, job: launch.Job) -> RunFailed:
    """What to raise for a job that did not finish: what happened, what to do about it, where to read on."""
    said = f"{title} {ended.outcome}: {ended.trouble}"
    if ended.outcome == "crashed" and crash.OUT_OF_MEMORY.search(ended.trouble):
        said += f"\nout of memory: {lower(plan.settings, plan.overrides)}; or another program holds some of it"
    elif ended.outcome == "crashed" and (cache := suspect(ended.trouble, job.env)):
        said += f"\nthe compile cache may be stale or damaged: delete {cache} and run again"
    said += f"\nwhat it wrote is in {runs.shown(job.folder)}"
    if ended.outcome == "interrupted":
        return Interrupted(said, ended.sign)
    return Stopped(said, ended.breach, job.folder) if ended.breach else RunFailed(said)


def _facts(stage: Stage, run: int, job: launch.Job, ended: launch.Ended) -> dict:
    """`run.json`, less its times."""
    plan, manifest = stage.plan, stage.manifest
    return {
        "record": plan.record.number,
        "slug": plan.record.slug,
        "script": runs.shown(plan.record.script),
        "script_sha256": plan.script_sha256,
        "run_id": job.folder.name,
        "plan": stage.key,
        "batch": stage.batch,
        "number": run,
        "fidelity": (in_company(plan.label) if ended.company else plan.label).name,
        "company": ended.company,
        "command": ["python" if part == sys.executable else _shorten(part) for part in job.command],
        "environment": bearing(job.env),
        "overrides": plan.overrides,
        "seed": plan.seed_of(run),
        "gpus": plan.ranks,
        "nnodes": plan.nodes.count,
        "machine": stage.machine.facts(plan.ranks),
        "versions": {"harness": release(), "commit": commit(), **stage.machine.versions()},
        "packages": packages(),
        "manifest": manifest
        and {
            "name": manifest.name,
            "origin": manifest.origin,
            "revision": manifest.revision,
            "digest": manifest.digest,
        },
        "exit": ended.exit,
        "outcome": ended.outcome,
        "fallbacks": ended.witness.fallbacks,
        "on_anomaly": None,
        "attempts": [],
    }


def _offer_data(folder: Path, data_dir: Path) -> None:
    """Let a script that takes no settings find the tokens where the public scripts look, below the run folder."""
    (folder / "data").mkdir()
    (folder / "data" / "fineweb10B").symlink_to(data_dir.absolute())


def _shorten(part: str) -> str:
    """An argument of the command line without the machine's own part of a path."""
    option, equals, value = part.rpartition("=")
    return option + equals + (runs.shown(Path(value)) if value.startswith("/") else value)
