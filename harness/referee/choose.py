"""Which arm of a submission is judged, and whether that was said or guessed."""

from harness.archive.record import Record
from harness.referee.source.rules import is_of
from harness.referee.submission import Arm
from harness.referee.verdict import PASS, UNKNOWN, Check

ARMS_SHOWN = 6


def judged_arm(separate: list[Arm], record: Record | None) -> Arm:
    """The arm that the verdict concerns: of the arms that are the record's, else of all, the largest without overrides.
    A record's arm that has its listed steps goes before others of the same script."""
    matching = [arm for arm in separate if record and is_of(arm.entries[0].run, record)]
    listed = record.listed.steps if record else None

    def rank(arm: Arm) -> tuple:
        return bool(arm.overrides), listed is not None and arm.planned_steps != listed, -len(arm.entries)

    return min(matching or separate, key=rank)


def is_guess(separate: list[Arm], judged: Arm, record: Record | None) -> bool:
    """Whether nothing says that the judged arm is the one that is meant."""
    return len(separate) > 1 and not (record is not None and is_of(judged.entries[0].run, record))


def check_arms(separate: list[Arm], judged: Arm, record: Record | None, edition: str) -> Check:
    """Runs of different code, steps or overrides are kept apart, and which arm is judged is said."""
    where = judged.entries[0].at(judged.entries[0].run.source_line)
    if len(separate) == 1:
        return Check("arms", PASS, f"one arm: {judged.name}, n = {len(judged.entries)} ({where})", edition)
    found = f"{len(separate)} arms, kept apart; judged: {judged.name}, n = {len(judged.entries)}"
    if not is_guess(separate, judged, record):
        return Check("arms", PASS, f"{found}, the script of {record.label} ({where})", edition)
    others = [f"{arm.name}, n = {len(arm.entries)}" for arm in separate if arm is not judged]
    more = f" and {len(others) - ARMS_SHOWN} more" if len(others) > ARMS_SHOWN else ""
    listed = "; ".join(others[:ARMS_SHOWN]) + more
    say = "to say which is meant, give its logs alone, or name its record by --record"
    return Check("arms", UNKNOWN, f"{found}, a guess ({where}); {say}; the others: {listed}", edition, decisive=True)
