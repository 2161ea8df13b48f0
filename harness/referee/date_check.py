"""The rule about dates: a run is no older than its software, and no younger than today."""

import datetime

from harness.referee.checks import Case, counted, environment_line
from harness.referee.submission import Entry
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.run import Run
from timing.vintage import earliest

ZONES = datetime.timedelta(days=1)
"""Slack for clocks in other time zones."""

_LINE = environment_line("date", "torch", "python")


def day_of(run: Run) -> datetime.date | None:
    """The day that a log gives itself."""
    return datetime.date.fromisoformat(run.date[:10]) if run.date else None


def day_of_rules(run: Run) -> datetime.date | None:
    """The day whose rules a run is judged by: the log's own, or that of its software where that is later. None for a
    log without a date: how old its software is says nothing of how young the run may be."""
    day, software = day_of(run), earliest(run)
    return max(day, software[0] - ZONES) if day and software else day


def check_date(case: Case) -> Check:
    """The date in a log, which chooses the rules, is one on which its software was there, and not in the future."""
    faults = [f"{fault} ({entry.at(_LINE(entry.run))})" for entry in case.entries if (fault := _impossible(entry))]
    if faults:
        return case.check("date", FAIL, counted(faults))
    undated = [entry.name for entry in case.entries if not entry.run.date]
    if undated:
        return case.check("date", UNKNOWN, f"no date in {counted(undated)}")
    days = sorted({day_of(entry.run).isoformat() for entry in case.entries})
    return case.check("date", PASS, f"{' to '.join(dict.fromkeys([days[0], days[-1]]))} ({case.first(_LINE)})")


def _impossible(entry: Entry) -> str:
    day, software = day_of(entry.run), earliest(entry.run)
    if day and day > datetime.date.today() + ZONES:
        return f"{day} lies in the future"
    if day and software and day < software[0] - ZONES:
        return f"{day} lies before its software was there: {software[1]}"
    return ""
