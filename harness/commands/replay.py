"""The commands that run: a record, two in turn, and what they need first."""

import json
import sys
from pathlib import Path

import click
import cloup

from harness.commands.options import AS_JSON, NEAREST, RUNS_DIR, SEED, Figure, RecordName, folder

ON_ANOMALY = ("stop", "fallback", "continue")
DATA_DIR = folder("--data-dir", "data/fineweb10B, or data/synthetic,")
RUN_OPTIONS = (
    click.option("--gpus", type=click.IntRange(1), help="Ranks on this machine. Default: its GPUs, or 2 CPU ranks."),
    click.option(
        "--scale", type=Figure(), default=1.0, metavar="FACTOR", help="Multiply the schedule's steps, such as by 0.1."
    ),
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
@click.option("--watch", is_flag=True, help="Hold the losses, and the norms of --telemetry, against what is healthy.")
@click.option(
    "--guard", is_flag=True, help="--watch with telemetry on, ten times a run at least; FP8 fallbacks reported."
)
@click.option("--on-anomaly", type=click.Choice(ON_ANOMALY), help="What --watch does on a breach. Default: stop.")
@click.option("--nnodes", type=click.IntRange(1), default=1, help="Machines that take part.")
@click.option("--node-rank", type=click.IntRange(0), default=0, help="Which of them this is, from 0.")
@click.option("--rdzv-endpoint", default="", metavar="HOST:PORT", help="Where node 0 listens.")
def replay(record, as_json, **options):
    """Run RECORD (a number, date, slug, folder or script) on this machine, and say what that proves."""
    from harness.replay.plan import Options
    from harness.replay.series import replay

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
    from harness.terminal import Undeterred

    stream = sys.stderr if as_json else sys.stdout
    return Undeterred(soft_wrap=not stream.isatty(), highlight=False, markup=False, stderr=as_json)


def _tell(facts: dict, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=1))


@click.command()
@click.argument("records", nargs=-1, required=True, metavar="05..12 | RECORD...")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Runs of each record, upwards and downwards in turn.",
)
@click.option(
    "--price", type=Figure(), default=3.0, show_default=True, metavar="DOLLARS", help="Of a GPU-hour, for the estimate."
)
@click.option("--budget", type=Figure(), metavar="DOLLARS", help="Start nothing that is estimated to cost more.")
@click.option("--dry-run", "dry", is_flag=True, help="Only the estimate.")
@run_options
def ladder(records, rounds, price, budget, dry, as_json, **options):
    """Replay neighbouring records at equal tokens, in turn, and chart what each technique brings here."""
    from harness.history import inside
    from harness.replay.ladder import Climb, climb
    from harness.replay.plan import Options

    console = _console(as_json)
    if written := climb(records, Climb(rounds, price, budget, dry), Options(**options), console):
        console.print(f"{written}\n{inside.draw('ladder', (str(written.parent),), None)}")
        _tell(json.loads(written.read_text()), as_json)


@click.command()
@click.option("--shards", default=8, show_default=True, help="Train shards of FineWeb, 100M tokens (200 MB) each.")
@DATA_DIR
@click.option("--check", "only_check", is_flag=True, help="Read what is on disk and hold it against its manifest.")
@click.option("--synthetic", is_flag=True, help="Make the small synthetic source instead; needs no network.")
@click.option("--seed", type=SEED, default=0, help="Seed of the synthetic source. Default: 0.")
@click.option("--describe", "name", default="", metavar="NAME", help="Write the manifest of shards of your own.")
@click.option("--gpt2-tokens", is_flag=True, help="GPT-2's tokens too, which record 89 looks into.")
def data(**options):
    """Fetch FineWeb's tokens (resumable, verified), or make or check a data folder."""
    from harness.tokens.prepare import prepare

    click.echo(prepare(**options))


@click.command()
@click.option("--collectives", "measured", is_flag=True, help="Measure kernels and the links between ranks too.")
@click.option("--report", "into", type=click.Path(path_type=Path), metavar="DIR", help="Measure, write JSON and page.")
@AS_JSON
def doctor(measured, into, as_json):
    """What this machine can replay, and why not more."""
    from harness.doctor.doctor import examine

    _tell(examine(_console(as_json), measured, into), as_json)


SECTION = cloup.Section("Replay", [replay, compare, ladder, data, doctor])
