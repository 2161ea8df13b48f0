"""The rules about the script in a log: whose it is, what it tells the compiler, what it does with its data.

The script is read by `ast` in a process of its own with limits, never run. What its text does not settle is UNKNOWN.
"""

import ast
import hashlib

from harness.archive.record import Record
from harness.referee.checks import Case, counted, logs
from harness.referee.known import Published, published_as, published_with
from harness.referee.source.reader import code_of, read_run, read_source
from harness.referee.submission import Entry
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.log import Run, printable
from timing.rules import COMPILE_DEFAULTS, ENVIRONMENT_PREFIXES, SETTING_DEFAULTS, Compiler

BANNED_MODULES = ("torch._inductor.config.", "torch._dynamo.config.", "torch.compiler.set_stance")
LONGEST_STUB = 2_000  # characters of the few lines that sample logs have in a source's place
LEFT_OUT = "the source is left out of the log"


def facts_of(run: Run) -> dict | None:
    """Facts about the script in a log, None if the log holds none, or a few lines that stand for one."""
    facts = read_run(run)
    if facts is None or facts.get("prints_metrics") or "error" in facts:
        return facts
    return facts if len(run.source) > LONGEST_STUB else None


def spellings(case: Case) -> list[tuple[Entry, dict | None]]:
    """(first run, facts) of each text that the code of an arm comes in: what one of them hides, no other shows."""
    first = {entry.run.source_sha256: entry for entry in reversed(case.entries)}
    return [(entry, facts_of(entry.run)) for entry in reversed(first.values())]


def unread(case: Case, rule: str) -> Check | None:
    """UNKNOWN where a script cannot be had or parsed, None where it can. Where it is there and
    cannot be parsed, that is decisive."""
    for entry, facts in spellings(case):
        if facts is None:
            return case.check(rule, UNKNOWN, f"{LEFT_OUT} ({entry.at(entry.run.source_line)})")
        if "error" in facts:
            where = entry.at(entry.run.source_line)
            return undecided(case, rule, f"the source cannot be read: {facts['error']} ({where})")
    return None


def undecided(case: Case, rule: str, evidence: str) -> Check:
    """UNKNOWN about a script that is there: decisive, save where all runs are published ones, whose script people have
    read when they took it for a record."""
    return case.check(rule, UNKNOWN, evidence, decisive=not all(published_as(entry.run) for entry in case.entries))


def is_script(run: Run, sha256: str) -> bool:
    """Whether the script in a log has this hash. A log closes the source with a newline of its own, which is not it."""
    if run.source is None or run.helpers:
        return False
    text = run.source.encode(errors="replace")
    return sha256 in (hashlib.sha256(each).hexdigest() for each in (text, text.removesuffix(b"\n")))


def frozen_hash(record: Record) -> str:
    """The frozen hash of a record, of a draft that of its script as it stands."""
    return record.sha256 or record.script_sha256()


def is_of(run: Run, record: Record) -> bool:
    """Whether the script in a log is the record's: the frozen one, the same code in other words, or, by eight digits,
    the one that was published."""
    if is_script(run, frozen_hash(record)):
        return True
    return _same_code(run, record) or any(row.number == record.number and row.linked for row in published_with(run))


def _same_code(run: Run, record: Record) -> bool:
    try:
        theirs = read_source(record.script.read_text(encoding="utf-8")).get("code")
    except (OSError, ValueError):
        return False
    return theirs is not None and theirs == code_of(run)


def check_source(case: Case) -> Check:
    """One code made all the logs; with a record, its frozen or its published script. One that was frozen before it
    decides nothing, and neither does one that was published beside it."""
    run, entry = case.entries[0].run, case.entries[0]
    facts, where = facts_of(run), entry.at(run.source_line)
    if facts is None:
        return case.check("source", UNKNOWN, f"{LEFT_OUT} ({where})")
    texts = len(spellings(case))
    spelt = f" in {texts} spellings" if texts > 1 else ""
    one = f"one source{spelt} in {logs(len(case.entries))}, sha256 {run.source_sha256[:12]}"
    if not facts.get("prints_metrics") and "error" not in facts:
        return undecided(case, "source", f"{one}: nothing in it writes a validation line as in these logs ({where})")
    rows = published_with(run)
    if case.record is None:
        numbers = ", ".join(dict.fromkeys(row.number for row in rows))
        published = f": the published script of record {numbers}, by eight digits" if rows else ""
        return case.check("source", PASS, f"{one}{published} ({where})")
    return _source_of(case, case.record, one, rows, where)


def _source_of(case: Case, record: Record, one: str, rows: list[Published], where: str) -> Check:
    """The source check against a record that was named."""
    run, frozen = case.entries[0].run, frozen_hash(record)
    if is_script(run, frozen):
        return case.check("source", PASS, f"{one}: the frozen script of {record.label} ({where})")
    if _same_code(run, record):
        said = f"the frozen script of {record.label}, but for comments, annotations or a run id"
        return case.check("source", PASS, f"{one}: {said} ({where})")
    mine = [row for row in rows if row.number == record.number]
    if any(row.linked for row in mine):
        return case.check("source", PASS, f"{one}: the published script of {record.label}, by eight digits ({where})")
    if mine:
        beside = f"published beside {record.label}, whose own script is another"
        return case.check("source", UNKNOWN, f"{one}: {beside} ({where})", decisive=True)
    for earlier, changed in record.earlier:
        if is_script(run, earlier):
            said = f"{one}: {record.label}'s script as it was frozen before; since then: {changed}"
            return case.check("source", UNKNOWN, f"{said} ({where})")
    return case.check("source", FAIL, f"{one}; the frozen script of {record.label} is {frozen[:12]} ({where})")


def check_compiler(case: Case) -> Check:
    """No compiler flag that the edition bans, in any spelling, in the script or a helper module."""
    rule = "compiler-flags"
    if case.edition.compiler == Compiler() and all(facts for _, facts in spellings(case)):
        return case.check(rule, PASS, f"any is allowed under the rules of {case.edition.name} ({case.first(start)})")
    if open_question := unread(case, rule):
        return open_question
    banned, hidden, allowed = [], [], set()
    for entry, facts in spellings(case):
        found = judge_flags(facts, case.edition.compiler)
        banned += [f"{text} ({place(entry, module, line)})" for text, module, line in found[0]]
        hidden += [f"{text} ({place(entry, module, line)})" for text, module, line in found[1]]
        allowed |= set(found[2])
    if banned:
        return case.check(rule, FAIL, f"banned: {counted(banned)}")
    if hidden:
        return undecided(case, rule, f"cannot be read from the text: {counted(hidden)}")
    set_flags = f"only {', '.join(sorted(allowed))}" if allowed else "no flag is set"
    return case.check(rule, PASS, f"{set_flags} ({case.first(start)})")


def judge_flags(facts: dict, compiler: Compiler) -> tuple[list, list, list[str]]:
    """(banned, undecided, allowed): the first two as (text, module, line), the last as names, of a script's facts."""
    banned, undecided, allowed = [], [], []
    for fact in facts["compiler"]:
        kind, name, value = fact["kind"], fact["name"], fact["value"]
        found = (f"{name}={value}" if value else name, fact["module"], fact["line"])
        if kind == "undecided":
            undecided.append(found)
        elif kind == "environment" and not name.startswith(ENVIRONMENT_PREFIXES):
            continue
        elif name in _allowed(kind, compiler) or _literal(value) in _defaults(kind).get(name, ()):
            allowed.append(name.rpartition(".")[2])
        elif kind == "setting" and not name.startswith(BANNED_MODULES):
            undecided.append(found)
        elif kind == "argument" and not value and name in COMPILE_DEFAULTS:
            undecided.append((f"{name}= of torch.compile is chosen at run time", *found[1:]))
        else:
            banned.append(found)
    undecided += [(f"import of {name}, which the log does not hold", "", line) for name, line in facts["imports"]]
    return banned, undecided, sorted(set(allowed))


def _allowed(kind: str, compiler: Compiler) -> frozenset[str]:
    chosen = {"argument": compiler.arguments, "setting": compiler.settings, "environment": compiler.environment}
    return chosen[kind] or frozenset()


def _defaults(kind: str) -> dict[str, tuple]:
    return {"argument": COMPILE_DEFAULTS, "setting": SETTING_DEFAULTS}.get(kind, {})


def _literal(value: str):
    try:
        return ast.literal_eval(value) if value else ...
    except (ValueError, SyntaxError):
        return ...


def start(run: Run) -> int | None:
    """The line at which the script starts in a log."""
    return run.source_line


def place(entry: Entry, module: str, line: int) -> str:
    """file:line of a place in the script; in a helper module, its name and its own line."""
    if module:
        return f"{entry.name}, {printable(module, 80)}.py:{line}"
    return entry.at((entry.run.source_line or 1) + line - 1)
