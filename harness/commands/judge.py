"""The commands that judge: somebody's logs, and this archive itself."""

import sys

import click
import cloup

from harness.commands.options import AS_JSON, RecordName


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path())
@click.option("--record", type=RecordName(), help="The record that the logs claim to be: its script, edition and kind.")
@click.option("--against", multiple=True, type=click.Path(), help="The baseline to beat: a folder, or a log each time.")
@click.option("--edition", metavar="DATE", help="Judge by the rules of that day instead of the record's or the logs'.")
@click.option("--systems", is_flag=True, help="The change is one of systems only: significance is waived.")
@click.option("--json", "form", flag_value="json", help="The verdict as JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="The verdict for a pull request.")
@click.option("--quiet", "form", flag_value="quiet", help="The verdict in one line, without its checks.")
def verify(logs, form, **options):
    """Judge LOGS (files, folders, or - for standard input) by the official rules.

    Exit code: 0 HOLDS, 1 FAILS, 3 INCONCLUSIVE, 2 unusable.
    """
    from harness.referee.verify import show

    sys.exit(show(logs, form, **options))


@click.command()
@click.option("--all", "every", is_flag=True, help="Also what passes.")
@AS_JSON
def audit(every, as_json):
    """Hold every record against its hash, its contract, the public tables and its own logs."""
    from harness.audit.audit import show, to_json

    sys.exit(to_json(every) if as_json else show(every))


SECTION = cloup.Section("Judge", [verify, audit])
