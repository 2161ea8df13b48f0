"""The commands that run: a record, two in turn, and what they need first."""

import json
import sys

import click
import cloup

from harness.commands.options import AS_JSON, NEAREST, RUNS_DIR, SEED, Figure, RecordName, folder

DATA_DIR = folder("--data-dir", "data/fineweb10B, or data/synthetic,")
RUN_OPTIONS = (
    click.option("--gpus", type=click.IntRange(1), help="Ranks on this machine. Default: its GPUs, or 2 CPU ranks."),
    click.option("--scale", type=Figure(), default=1.0, metavar="FACTOR", help="Multiply the steps, such as by 0.1."),
    click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Override a setting; repeatable."),
    click.option("--seed", type=SEED, help="Seed of the first run; the next ones count up."),
    DATA_DIR,
    click.option("--repeat", is_flag=True, help="Allow several passes over a corpus that is too small."),
    click.option("--smoke", is_flag=True, help="Toy size and synthetic tokens, also on a machine with CUDA."),
    click.option("--fresh", is_flag=True, help="Start over, whatever runs of this kind are finished."),
    click.option("--stall-timeout", type=Figure(), default=900.0, help="Seconds without a metric line that end a run."),
    RUNS_DIR,
    click.option("--trust", "--yes", "trust", is_flag=True, help="Run code from outside the archive without asking."),
    NEAREST,
    AS_JSON,
)


def run_options(command):
    """The options that all commands have which run a record."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("record", type=RecordName())
@click.option("--runs", type=click.IntRange(1), default=1, help="Several runs; those already finished are kept.")
@run_options
@click.option("--dry-run", is_flag=True, help="Say what would be run, fetched and proven, and stop.")
@click.option("--telemetry", type=click.IntRange(0), default=0, metavar="STEPS", help="Log norms every so many steps.")
@click.option("--guard", is_flag=True, help="Watch FP8: telemetry on, and fallbacks to bf16 reported.")
@click.option("--nnodes", type=click.IntRange(1), default=1, help="Machines that take part.")
@click.option("--node-rank", type=click.IntRange(0), default=0, help="Which of them this is, from 0.")
@click.option("--rdzv-endpoint", default="", metavar="HOST:PORT", help="Where node 0 listens.")
def replay(record, as_json, **options):
    """Run RECORD (a number, date, slug, folder or script) on this machine, and say what that proves."""
    from harness.replay.plan import Options
    from harness.replay.replay import replay

    _tell(replay(record, Options(**options), _console(as_json)), as_json)


@click.command()
@click.argument("first", metavar="A", type=RecordName())
@click.argument("second", metavar="B", type=RecordName())
@click.option("--pairs", type=click.IntRange(1), default=3, help="How often to run the two, in the order A B B A ...")
@run_options
def compare(first, second, pairs, as_json, **options):
    """Run records A and B in turn on this machine, and say which is faster and at what loss."""
    from harness.replay.compare import compare
    from harness.replay.plan import Options

    _tell(compare(first, second, pairs, Options(**options), _console(as_json)), as_json)


def _console(as_json: bool):
    """Where a command reports: stdout, or stderr where stdout is for a program."""
    from rich.console import Console

    stream = sys.stderr if as_json else sys.stdout
    return Console(soft_wrap=not stream.isatty(), highlight=False, markup=False, stderr=as_json)


def _tell(facts: dict, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=1))


@click.command()
@click.option("--shards", default=8, show_default=True, help="Train shards of FineWeb, 100M tokens (200 MB) each.")
@DATA_DIR
@click.option("--check", "only_check", is_flag=True, help="Read what is on disk and hold it against its manifest.")
@click.option("--synthetic", is_flag=True, help="Make the small synthetic source instead; needs no network.")
@click.option("--seed", type=SEED, default=0, help="Seed of the synthetic source. Default: 0.")
@click.option("--describe", "name", default="", metavar="NAME", help="Write the manifest of shards of your own.")
def data(**options):
    """Fetch FineWeb's tokens (resumable, verified), or make or check a data folder."""
    from harness.tokens.prepare import prepare

    click.echo(prepare(**options))


@click.command()
@click.option("--collectives", "benchmark", is_flag=True, help="Measure kernels and the links between ranks too.")
@AS_JSON
def doctor(benchmark, as_json):
    """What this machine can replay, and why not more."""
    from harness.doctor.doctor import examine

    _tell(examine(_console(as_json), benchmark), as_json)


SECTION = cloup.Section("Replay", [replay, compare, data, doctor])
