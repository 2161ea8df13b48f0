"""The rules about what a script does with its data, its clock, its seeds and its settings, by what its text tells."""

from functools import cache
from pathlib import Path

from harness.archive.find import discover
from harness.referee.checks import Case, counted
from harness.referee.source.reader import read_loader
from harness.referee.source.rules import place, spellings, start, undecided, unread
from harness.referee.verdict import FAIL, PASS, Check


def check_val_tokens(case: Case) -> Check:
    """The final loss is measured on as many validation tokens as the edition says, all of their batches."""
    rule, wanted = "val-tokens", case.edition.val_tokens
    for each in case.entries:
        override = each.run.overrides.get("val_tokens")
        if override is not None and override.replace("_", "") != str(wanted):
            at = each.at(each.run.env_line.get("override val_tokens"))
            return case.check(rule, FAIL, f"{override} validation tokens, not {wanted:,} ({at})")
    if open_question := unread(case, rule):
        return open_question
    for entry, facts in spellings(case):
        given, fewer = facts["val_tokens"], facts["val_share"]
        for value, module, line in given:
            if value is not None and value != wanted:
                return case.check(
                    rule, FAIL, f"{value:,} validation tokens, not {wanted:,} ({place(entry, module, line)})"
                )
        if not given or any(value is None for value, _, _ in given):
            where = case.first(start)
            return undecided(case, rule, f"the script does not say in a plain number how many ({where})")
        if fewer:
            shown = [f"{how} ({place(entry, module, line)})" for how, module, line in fewer]
            return undecided(case, rule, f"a part of the validation batches may be left out: {counted(shown)}")
    return case.check(rule, PASS, f"{wanted:,} ({place(entry, *given[0][1:])})")


def check_validation_reads(case: Case) -> Check:
    """Validation shards are read in validation sections only, never beside a backward pass, and none else is."""
    rule = "validation-reads"
    if open_question := unread(case, rule):
        return open_question
    for entry, facts in spellings(case):
        for text, kind, module, line in facts["globs"]:
            said = "covers train and validation shards" if kind == "both" else "is a train shard, read for validation"
            return case.check(rule, FAIL, f"{text} {said} ({place(entry, module, line)})")
        reads = facts["validation"]
        beside = [place(entry, "", line) for where, line in reads if where == "training"]
        outside = [place(entry, "", line) for where, line in reads if where == "elsewhere"]
        if beside:
            return case.check(rule, FAIL, f"read beside a backward pass ({counted(beside)})")
        if outside:
            return undecided(case, rule, f"read outside of a validation section ({counted(outside)})")
        if not reads:
            return undecided(case, rule, f"no read of validation shards was recognised ({case.first(start)})")
    return case.check(rule, PASS, f"in validation sections only ({place(entry, '', reads[0][1])})")


def check_token_stream(case: Case) -> Check:
    """The functions that load the data are those of the record, of its parent, or of another record of the archive."""
    rule, where = "token-stream", case.first(start)
    if open_question := unread(case, rule):
        return open_question
    loaders = [facts["loader"] for _, facts in spellings(case)]
    for mine in [each for at, each in enumerate(loaders) if each not in loaders[:at]]:
        if not mine:
            return undecided(case, rule, f"no data-loading function was recognised ({where})")
        same, unlike = "", ""
        for known in filter(None, (case.record, case.parent, *(() if case.record else discover()))):
            try:
                script = _text_once(known.script, known.script.stat().st_mtime_ns)
            except (OSError, ValueError):
                continue
            if case.record is None and not all(name.rpartition(":")[2] in script for name in mine):
                continue  # it lacks one of the functions: no need to parse it
            theirs = read_loader(script)
            changed = sorted(name for name in mine | theirs if mine.get(name) != theirs.get(name))
            if not changed:
                same = known.label
                break
            unlike = f"{', '.join(changed[:4])} differ from {known.label}: read them"
        if not same:
            unlike = unlike if case.record else "no record of the archive loads its data so: name yours by --record"
            return undecided(case, rule, f"{unlike} ({where})")
    return case.check(rule, PASS, f"the data-loading functions are those of {same} ({where})")


@cache
def _text_once(script: Path, changed: int) -> str:
    """The text of a script, read again only when it has `changed` since."""
    return script.read_text(encoding="utf-8")


def check_clock_source(case: Case) -> Check:
    """The times that the script prints are those of a clock, in its own units, and the clock is Python's or CUDA's."""
    rule = "clock-source"
    if open_question := unread(case, rule):
        return open_question
    for entry, facts in spellings(case):
        clock = facts["clock"]
        faults = [f"{what} is replaced ({place(entry, *at)})" for what, *at in clock["replaced"]]
        if faults:
            return case.check(rule, FAIL, counted(faults))
        scaled = [
            (_shortens(sign, number), f"a time {reckoned(sign, number)} ({place(entry, *at)})")
            for sign, number, *at in clock["scaled"]
        ]
        if any(short for short, _ in scaled):
            said = counted([said for short, said in scaled if short])
            return case.check(rule, FAIL, f"a second has 1000 milliseconds: {said}")
        if scaled:
            return undecided(case, rule, f"times are reckoned with: {counted([said for _, said in scaled])}")
        if clock["printed"] == "other":
            return undecided(case, rule, f"the time behind train_time: comes from no known clock ({case.first(start)})")
    return case.check(rule, PASS, f"times of a clock, in its own units ({case.first(start)})")


def check_loss_source(case: Case) -> Check:
    """The loss behind `val_loss:` is what validation gave."""
    rule = "loss-source"
    if open_question := unread(case, rule):
        return open_question
    for entry, facts in spellings(case):
        moved = [f"a loss {reckoned(sign, n)} ({place(entry, *at)})" for sign, n, *at in facts["loss"]]
        if moved:
            return undecided(case, rule, f"losses are reckoned with: {counted(moved)}")
    return case.check(rule, PASS, f"no number of the script's own moves it ({case.first(start)})")


def reckoned(sign: str, number: float | None) -> str:
    """`* 0.97`, `in min() with something else`."""
    return f"{sign} {'something else' if number is None else f'{number:g}'}"


def _shortens(sign: str, number: float | None) -> bool:
    """Whether a time is made shorter, by less than any change of units would."""
    if number is None:
        return False
    return (sign == "*" and (0.3 < number < 1 or 300 < number < 1000)) or (sign == "/" and 1 < number < 3)


def check_start(case: Case) -> Check:
    """Training starts from nothing: no weights come from a disk or the net, and no seed is every run's."""
    rule = "fresh-start"
    if open_question := unread(case, rule):
        return open_question
    for entry, facts in spellings(case):
        read = [f"{how} ({place(entry, *at)})" for how, *at in facts["weights"]]
        if read:
            return undecided(case, rule, f"weights may come from outside: {counted(read)}")
        seeds = [f"seed {seed} ({place(entry, *at)})" for seed, *at in facts["seeds"]]
        if seeds and len(case.entries) > 1:
            return undecided(case, rule, f"one fixed seed for all runs, which is no sample: {counted(seeds)}")
    return case.check(rule, PASS, f"nothing but tokens is read, and no seed is fixed ({case.first(start)})")


def check_script_settings(case: Case) -> Check:
    """The script's own settings made the run: its steps are the log's, and nothing comes from unseen variables."""
    rule = "script-settings"
    if open_question := unread(case, rule):
        return open_question
    for entry, facts in spellings(case):
        outside = [f"{name} ({place(entry, *at)})" for name, *at in facts["outside"]]
        if outside:
            return undecided(case, rule, f"from environment variables that no log shows: {counted(outside)}")
        planned, (possible, certain) = entry.run.planned_steps, _possible_steps(facts["steps"])
        steps_set = any("iteration" in name or "step" in name for name in entry.run.overrides)
        if possible and planned is not None and not steps_set and planned not in possible:
            said = f"the log plans {planned} steps, the script {' or '.join(map(str, sorted(possible)[:4]))}"
            if certain:
                return case.check(rule, FAIL, f"{said} ({case.first(start)})")
            return undecided(case, rule, f"{said}, as far as it can be read ({case.first(start)})")
    return case.check(rule, PASS, f"the script's own, as far as it shows them ({case.first(start)})")


def _possible_steps(steps: dict[str, list]) -> tuple[set[int], bool]:
    """(numbers of steps that a script may plan, whether that is all of them): literals, and what extensions add."""
    extends = {name: "exten" in name or "extra" in name for name in steps}
    base = {value for name, given in steps.items() if not extends[name] for value in given if value is not None}
    more = {value for name, given in steps.items() if extends[name] for value in given if value is not None}
    certain = all(value is not None for given in steps.values() for value in given)
    return base | {one + other for one in base for other in more}, certain
