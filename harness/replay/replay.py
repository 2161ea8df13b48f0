"""Replay a record: plan, data, one run after the other, and what they show."""

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
from harness.replay import launch, runs, tokens
from harness.replay.outcome import Result, report
from harness.replay.plan import Options, Plan, make_plan
from harness.replay.progress import progress
from harness.replay.rehearsal import as_lines, rehearse
from harness.replay.signals import Interrupted
from harness.replay.torchrun import check_port, environment, torchrun_command
from harness.terminal import say
from harness.tokens.manifest import Manifest


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


def replay(name: str, options: Options, console: Console) -> dict:
    """Run the record that `name` means, report on it, and return the report as data.

    Several runs are taken up where an earlier call left them; the user who asks for one run gets one. With `dry_run`
    nothing is run, fetched or written. Raises RunFailed if it does not run or does not hold.
    """
    record = choose(name, options, console)
    machine = usable_machine()
    if options.dry_run:
        return _rehearse(record, options, machine, console)
    plan, manifest = settle(record, options, machine, console)
    key = plan.digest(manifest)
    earlier = [] if options.fresh or options.runs == 1 else runs.of_plan(options.runs_dir, record.slug, key)
    batch = earlier[-1][1]["batch"] if earlier else runs.time_id()
    stage = Stage(plan, machine, manifest, options.runs_dir, key, batch, console)
    results = [Result.of(folder, facts) for folder, facts in earlier if facts["outcome"] == "finished"][: options.runs]
    if results:
        console.print(f"{len(results)} of {options.runs} runs are done already (--fresh starts over)")
    for run in range(len(results), options.runs):
        of = f", run {run + 1} of {options.runs}" if options.runs > 1 else ""
        results.append(perform(stage, run, record.label + of))
    verdict = report(plan, results, manifest, console, guard=options.guard)
    facts = {"record": record.number, "slug": record.slug, "fidelity": plan.label.name, "proves": plan.label.proves}
    return facts | {"runs": [result.as_data() for result in results], "verdict": verdict}


def _rehearse(record: Record, options: Options, machine: Machine, console: Console) -> dict:
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


def perform(stage: Stage, run: int, title: str) -> Result:
    """Run number `run` of a plan in a folder of its own. Raises RunFailed, in words, if it does not finish."""
    plan = stage.plan
    folder = runs.create(stage.runs_dir, plan.record.slug).absolute()
    arguments = plan.arguments(folder / LOG, run)
    line = torchrun_command(plan.record.script.absolute(), arguments, plan.ranks, folder, plan.nodes)
    if plan.settings is None:
        _offer_data(folder, plan.data_dir)
    job = launch.Job(line, folder, environment(plan.ranks, plan.gpu), plan.stall_timeout_s, plan.nodes.rank == 0)
    started = runs.now()
    with progress(stage.console, title) as live:
        ended = launch.run(job, live)
    runs.adopt_log(folder)
    facts = _facts(stage, run, folder, line, ended) | {
        "started": started.isoformat(timespec="seconds"),
        "ended": runs.now().isoformat(timespec="seconds"),
        "witness": ended.witness.as_columns(),
    }
    if ended.trouble:
        facts["trouble"] = ended.trouble
    runs.write(folder, facts)
    if ended.outcome != "finished":
        kind = Interrupted if ended.outcome == "interrupted" else RunFailed
        raise kind(f"{title} {ended.outcome}: {ended.trouble}\nwhat it wrote is in {runs.shown(folder)}")
    return Result.of(folder, facts)


def _facts(stage: Stage, run: int, folder: Path, line: list[str], ended: launch.Ended) -> dict:
    """`run.json`, less its times."""
    plan, manifest = stage.plan, stage.manifest
    return {
        "record": plan.record.number,
        "slug": plan.record.slug,
        "script": runs.shown(plan.record.script),
        "script_sha256": plan.script_sha256,
        "run_id": folder.name,
        "plan": stage.key,
        "batch": stage.batch,
        "number": run,
        "fidelity": plan.label.name,
        "command": ["python" if part == sys.executable else _shorten(part) for part in line],
        "overrides": plan.overrides,
        "seed": plan.seed_of(run),
        "gpus": plan.ranks,
        "nnodes": plan.nodes.count,
        "machine": stage.machine.facts(plan.ranks),
        "versions": stage.machine.versions(),
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
    }


def _offer_data(folder: Path, data_dir: Path) -> None:
    """Let a script that takes no settings find the tokens where the public scripts look, below the run folder."""
    (folder / "data").mkdir()
    (folder / "data" / "fineweb10B").symlink_to(data_dir.absolute())


def _shorten(part: str) -> str:
    """An argument of the command line without the machine's own part of a path."""
    option, equals, value = part.rpartition("=")
    return option + equals + (runs.shown(Path(value)) if value.startswith("/") else value)
