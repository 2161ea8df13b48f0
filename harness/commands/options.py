"""What several commands ask for in the same way: a record by its name, a folder, a form, numbers that make sense."""

import math
from pathlib import Path

import click
from click.shell_completion import CompletionItem


class RecordName(click.ParamType):
    """A record as a person types it. The shell completes numbers and slugs, and paths once there is a slash.

    `everywhere`: also the numbers of records whose script is not here.
    """

    name = "record"

    def __init__(self, everywhere: bool = False):
        self.everywhere = everywhere

    def shell_complete(self, ctx, param, incomplete):
        from harness.archive import find, leaderboard

        if "/" in incomplete:
            return [CompletionItem(incomplete, type="file")]
        records = find.discover()
        names = {name: record.title for record in records for name in (record.number, record.slug)}
        if self.everywhere:
            listings = leaderboard.read_leaderboard(find.ROOT)
            names = {one.number: f"{one.title} (no script here)" for one in listings} | names
        fits = sorted((name for name in names if name.startswith(incomplete)), key=find.number_key)
        return [CompletionItem(name, help=names[name]) for name in fits]


class Figure(click.FloatRange):
    """A number above 0, and a number: nan and infinity are none."""

    def __init__(self):
        super().__init__(0, min_open=True)

    def convert(self, value, param, ctx):
        figure = super().convert(value, param, ctx)
        if not math.isfinite(figure):
            self.fail(f"{value} is not a number that anything could be done with", param, ctx)
        return figure


MOST_SEED = 2**63 - 1  # torch.manual_seed takes no more
SEED = click.IntRange(0, MOST_SEED)


def _runs_dir(ctx, param, value):
    from harness.archive import places

    return value or places.runs_dir()


def folder(name: str, default: str, words: str = ""):
    """An option for a folder that by default is one of the repository's."""
    said = f"{words} Default: {default} in the repository.".lstrip()
    callback = _runs_dir if name == "--runs-dir" else None
    return click.option(name, type=click.Path(path_type=Path), metavar="DIR", callback=callback, help=said)


RUNS_DIR = folder("--runs-dir", "runs", "Our own replays.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
NEAREST = click.option("--nearest", is_flag=True, help="Where a record's script is not here, take the nearest that is.")
