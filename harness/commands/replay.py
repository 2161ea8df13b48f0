"""The commands that run: a record, two in turn, and what they need first."""

from pathlib import Path

import click
import cloup

ON_ANOMALY = ("stop", "fallback", "continue")
POSITIVE = click.FloatRange(0, min_open=True)
RUN_OPTIONS = (
    click.option("--gpus", type=int, help="Ranks on this machine. Default: all of its GPUs, or 2 CPU ranks."),
    click.option("--scale", default=1.0, metavar="FACTOR", help="Multiply the number of steps, such as by 0.1."),
    click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Override a setting; repeatable."),
    click.option("--seed", type=int, help="Seed of the first run; the next ones count up."),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Default: data/fineweb10B, or data/synthetic."),
    click.option("--repeat", is_flag=True, help="Allow several passes over a corpus that is too small."),
    click.option("--smoke", is_flag=True, help="Toy size and synthetic tokens, also on a machine with CUDA."),
    click.option("--fresh", is_flag=True, help="Start over, whatever runs of this kind are finished."),
    click.option("--stall-timeout", type=POSITIVE, default=900.0, help="Seconds without a metric line that end a run."),
    click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True),
    click.option("--trust", "--yes", "trust", is_flag=True, help="Run code from outside the archive without asking."),
)


def run_options(command):
    """The options that all commands have which run a record."""
    for option in reversed(RUN_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("record")
@click.option("--runs", default=1, show_default=True, help="Several runs; those already finished are kept.")
@run_options
@click.option("--telemetry", default=0, metavar="STEPS", help="Log norms and optimizer figures every so many steps.")
@click.option("--watch", is_flag=True, help="Hold the losses, and the norms of --telemetry, against what is healthy.")
@click.option(
    "--guard", is_flag=True, help="--watch with telemetry on, ten times a run at least; FP8 fallbacks reported."
)
@click.option("--on-anomaly", type=click.Choice(ON_ANOMALY), help="What --watch does on a breach. Default: stop.")
@click.option("--nnodes", default=1, help="Machines that take part.")
@click.option("--node-rank", default=0, help="Which of them this is.")
@click.option("--rdzv-endpoint", default="", metavar="HOST:PORT", help="Where node 0 listens.")
def replay(record, **options):
    """Run RECORD (a number, date, slug, folder or script) on this machine, and say what that proves."""
    from rich.console import Console

    from harness.replay.plan import Options
    from harness.replay.series import replay

    replay(record, Options(**options), Console(soft_wrap=True, highlight=False, markup=False))


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--pairs", default=3, show_default=True, help="How often to run the two, in the order A B B A A B ...")
@run_options
def compare(first, second, pairs, **options):
    """Run records A and B in turn on this machine, and say which is faster and at what loss."""
    from rich.console import Console

    from harness.replay.compare import compare
    from harness.replay.plan import Options

    compare(first, second, pairs, Options(**options), Console(soft_wrap=True, highlight=False, markup=False))


@click.command()
@click.argument("records", nargs=-1, required=True, metavar="05..12 | RECORD...")
@click.option("--rounds", default=3, show_default=True, help="Runs of each record, upwards and downwards in turn.")
@click.option("--price", default=3.0, show_default=True, metavar="DOLLARS", help="Of a GPU-hour, for the estimate.")
@click.option("--budget", type=POSITIVE, metavar="DOLLARS", help="Start nothing that is estimated to cost more.")
@click.option("--dry-run", "dry", is_flag=True, help="Only the estimate.")
@run_options
def ladder(records, rounds, price, budget, dry, **options):
    """Replay neighbouring records at equal tokens, in turn, and chart what each technique brings here."""
    from rich.console import Console

    from harness.history import inside
    from harness.replay.ladder import Climb, climb
    from harness.replay.plan import Options

    console = Console(soft_wrap=True, highlight=False, markup=False)
    if written := climb(records, Climb(rounds, price, budget, dry), Options(**options), console):
        click.echo(f"{written}\n{inside.draw('ladder', (str(written.parent),), None)}")


@click.command()
@click.option("--shards", default=8, show_default=True, help="Train shards of FineWeb, 100M tokens (200 MB) each.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Default: data/fineweb10B, or data/synthetic.")
@click.option("--check", "only_check", is_flag=True, help="Read what is on disk and hold it against its manifest.")
@click.option("--synthetic", is_flag=True, help="Make the small synthetic source instead; needs no network.")
@click.option("--seed", default=0, show_default=True, help="Seed of the synthetic source.")
@click.option("--describe", "name", default="", metavar="NAME", help="Write the manifest of shards of your own.")
def data(**options):
    """Fetch FineWeb's tokens (resumable, verified), or make or check a data folder."""
    from harness.tokens.prepare import prepare

    click.echo(prepare(**options))


@click.command()
@click.option("--collectives", "measured", is_flag=True, help="Measure kernels and the links between ranks too.")
@click.option("--json", "as_json", is_flag=True, help="All facts, as JSON.")
@click.option("--report", "into", type=click.Path(path_type=Path), metavar="DIR", help="Measure, write JSON and page.")
def doctor(**options):
    """What this machine can replay, and why not more."""
    from rich.console import Console

    from harness.doctor.doctor import examine

    examine(Console(soft_wrap=True, highlight=False, markup=False), **options)


SECTION = cloup.Section("Replay", [replay, compare, ladder, data, doctor])
