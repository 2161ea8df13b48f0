"""The front door: each command parses its options and calls one function of one module.

Imports of the heavy rooms stand inside the commands, so that `harness --help` answers at once.
"""

import sys
from pathlib import Path

import click

from harness.errors import UserError, in_one_line


class FrontDoor(click.Group):
    """A click group that turns every foreseen failure into one line on stderr and its exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (UserError, OSError, ValueError) as error:
            said = in_one_line(error)
            if ctx.params.get("debug") or said is None:
                raise
            click.echo(f"error: {said}", err=True)
            sys.exit(getattr(error, "exit_code", UserError.exit_code))


@click.group(cls=FrontDoor)
@click.version_option(package_name="speedrun-archive", message="%(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug):
    """The NanoGPT speedrun, re-runnable: records, replays, verdicts and charts."""


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="All facts, as JSON.")
def list_records(as_json):
    """The archive as a table; tab-separated when piped."""
    from rich.console import Console

    from harness.listing import show

    show(Console(), as_json)


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


@main.command()
@click.argument("record")
@click.option("--runs", default=1, show_default=True, help="Several runs; those already finished are kept.")
@run_options
@click.option("--telemetry", default=0, metavar="STEPS", help="Log norms and optimizer figures every so many steps.")
@click.option("--guard", is_flag=True, help="Watch FP8: telemetry on, and fallbacks to bf16 reported.")
@click.option("--nnodes", default=1, help="Machines that take part.")
@click.option("--node-rank", default=0, help="Which of them this is.")
@click.option("--rdzv-endpoint", default="", metavar="HOST:PORT", help="Where node 0 listens.")
def replay(record, **options):
    """Run RECORD (a number, date, slug, folder or script) on this machine, and say what that proves."""
    from rich.console import Console

    from harness.plan import Options
    from harness.replay import replay

    replay(record, Options(**options), Console(soft_wrap=True, highlight=False, markup=False))


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--pairs", default=3, show_default=True, help="How often to run the two, in the order A B B A A B ...")
@run_options
def compare(first, second, pairs, **options):
    """Run records A and B in turn on this machine, and say which is faster and at what loss."""
    from rich.console import Console

    from harness.compare import compare
    from harness.plan import Options

    compare(first, second, pairs, Options(**options), Console(soft_wrap=True, highlight=False, markup=False))


@main.command()
@click.option("--collectives", "benchmark", is_flag=True, help="Measure kernels and the links between ranks too.")
def doctor(benchmark):
    """What this machine can replay, and why not more."""
    from rich.console import Console

    from harness.doctor import examine

    examine(Console(soft_wrap=True, highlight=False, markup=False), benchmark)


@main.command()
@click.option("--shards", default=8, show_default=True, help="Train shards of FineWeb, 100M tokens (200 MB) each.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Default: data/fineweb10B, or data/synthetic.")
@click.option("--check", "only_check", is_flag=True, help="Read what is on disk and hold it against its manifest.")
@click.option("--synthetic", is_flag=True, help="Make the small synthetic source instead; needs no network.")
@click.option("--seed", default=0, show_default=True, help="Seed of the synthetic source.")
@click.option("--describe", "name", default="", metavar="NAME", help="Write the manifest of shards of your own.")
def data(**options):
    """Fetch FineWeb's tokens (resumable, verified), or make or check a data folder."""
    from harness.data import prepare

    click.echo(prepare(**options))


@main.command()
@click.argument("old")
@click.argument("new")
@click.option("--side-by-side/--unified", default=False, help="Two columns, or one (the default).")
@click.option("--stat", "only_stat", is_flag=True, help="Only the lines changed, section by section.")
@click.option("--facts", "only_facts", is_flag=True, help="Only the settings and published figures that differ.")
@click.option("--context", type=click.IntRange(0), default=3, help="Unchanged lines around a change. Default: 3.")
@click.option("--whole", is_flag=True, help="Fold nothing that changed: claims and moved blocks in full.")
@click.option("--light", is_flag=True, help="Colours for a light terminal.")
@click.option("--color/--no-color", "colour", default=None, help="Default: colour on a terminal.")
def diff(old, new, **options):
    """Show what changed from record OLD to record NEW: the scripts, section by section."""
    from harness.diff_report import diff

    text = diff(old, new, **options)
    click.echo_via_pager(text, color=True) if sys.stdout.isatty() else click.echo(text, nl=False, color=True)


@main.command()
@click.argument("slug")
@click.option("--from", "parent", required=True, metavar="RECORD", help="The record that the submission builds on.")
@click.option("--into", type=click.Path(path_type=Path), help="Where the folder is made. Default: the archive.")
def new(slug, parent, into):
    """Start a submission: a folder named after today and SLUG, with RECORD's script to change."""
    from harness.submit import new

    folder = new(slug, parent, into)
    click.echo(f"{folder}\nnext: harness replay {folder}/, harness diff {parent} {folder}/, harness freeze {folder}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--again", is_flag=True, help="Freeze a changed script of a frozen record anew.")
def freeze(folder, again):
    """Run the contract tests on FOLDER and write the hash of its script if they pass."""
    from harness.submit import freeze

    click.echo(freeze(folder, again))


@main.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path())
@click.option("--record", metavar="RECORD", help="The record that the logs claim to be: its script, edition and kind.")
@click.option("--against", multiple=True, type=click.Path(), help="The baseline to beat: a folder, or a log each time.")
@click.option("--edition", metavar="DATE", help="Judge by the rules of that day instead of the record's or the logs'.")
@click.option("--systems", is_flag=True, help="The change is one of systems only: significance is waived.")
@click.option("--json", "form", flag_value="json", help="The verdict as JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="The verdict for a pull request.")
def verify(logs, form, **options):
    """Judge LOGS (files or folders) by the official rules. Exit code: 0 HOLDS, 1 FAILS, 3 INCONCLUSIVE, 2 unusable."""
    from harness.verify import show

    sys.exit(show(logs, form, **options))


@main.command()
@click.argument("record")
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True, help="Our own replays.")
def show(record, runs_dir):
    """One record on one screen: facts, claim, settings against its parent, curve, times."""
    from rich.console import Console

    from harness.show import show

    show(record, Console(highlight=False, markup=False, emoji=False), runs_dir)


@main.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), default="imported", show_default=True, metavar="DIR")
def import_(path, into):
    """Make records of your own from someone else's folder of logs; nothing in them is run."""
    from harness.importing import import_logs

    import_logs(path, into, click.echo)


@main.command()
@click.argument("names", nargs=-1, metavar="[progress|attribution|curves|machine|significance]...")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: reports/out in the repository.")
@click.option("--record", "records", multiple=True, metavar="RECORD", help="A record for the loss curves; repeatable.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True, help="Our own replays.")
@click.option("--write", is_flag=True, help="Also renew the committed figures in reports/figures/.")
def chart(**options):
    """Draw the figures (default: all) as PNG and SVG, light and dark, for slides and for a column."""
    from harness.report import draw

    click.echo(draw(**options))


@main.command()
@click.option("--csv", "form", flag_value="csv", help="As comma-separated values.")
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option("--markdown", "form", flag_value="markdown", default="markdown", help="As markdown (the default).")
@click.option("--write", is_flag=True, help="Renew the tables in README.md and records/README.md instead.")
def leaderboard(form, write):
    """All records: listed and logged times, losses, what disagrees."""
    from harness.report import leaderboard_text, write_pages

    click.echo(write_pages() if write else leaderboard_text(form), nl=write)


@main.command()
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Default: reports/out in the repository.")
@click.option("--runs-dir", type=click.Path(path_type=Path), default="runs", show_default=True, help="Our own replays.")
def report(out, runs_dir):
    """Build the static page: one file with every record, its curves and what changed."""
    from harness.report import write_report

    click.echo(write_report(out, runs_dir))


@main.command()
@click.option("--all", "every", is_flag=True, help="Also what passes.")
def audit(every):
    """Hold every record against its hash, its contract, the public tables and its own logs."""
    from harness.audit import show

    sys.exit(show(every))


if __name__ == "__main__":
    main()
