"""The rules about the script in a log: whose it is, what it tells the compiler, what it does with its data.

The script is read by `ast` in a process of its own with limits, never run. What its text does not settle is UNKNOWN.
"""

import ast
import hashlib

from harness.archive.record import Record
from harness.referee.checks import Case, counted, logs
from harness.referee.source.reader import read_source
from harness.referee.verdict import FAIL, PASS, UNKNOWN, Check
from timing.log import Run, printable
from timing.rules import COMPILE_DEFAULTS, ENVIRONMENT_PREFIXES, SETTING_DEFAULTS, Compiler

BANNED_MODULES = ("torch._inductor.config.", "torch._dynamo.config.", "torch.compiler.set_stance")
LEFT_OUT = "the source is left out of the log"


def facts_of(run: Run) -> dict | None:
    """Facts about the script in a log, None if the log holds none that could have written it."""
    if run.source is None:
        return None
    facts = read_source(run.source, run.helpers)
    return facts if facts.get("prints_metrics") or "error" in facts else None


def is_script(run: Run, sha256: str) -> bool:
    """Whether the script in a log has this hash. A log closes the source with a newline of its own, which is not it."""
    if run.source is None or run.helpers:
        return False
    text = run.source.encode(errors="replace")
    return sha256 in (hashlib.sha256(each).hexdigest() for each in (text, text.removesuffix(b"\n")))


def frozen_hash(record: Record) -> str:
    """The frozen hash of a record, of a draft that of its script as it stands."""
    return record.sha256 or record.script_sha256()


def check_source(case: Case) -> Check:
    """One script made all the logs; with a record, its frozen script. One that was frozen before it decides nothing."""
    run, entry = case.entries[0].run, case.entries[0]
    if facts_of(run) is None:
        return case.check("source", UNKNOWN, f"{LEFT_OUT} ({entry.at(run.source_line)})")
    one, where = f"one source in {logs(len(case.entries))}, sha256 {run.source_sha256[:12]}", entry.at(run.source_line)
    if case.record is None:
        return case.check("source", PASS, f"{one} ({where})")
    frozen = frozen_hash(case.record)
    if is_script(run, frozen):
        return case.check("source", PASS, f"{one}: the frozen script of {case.record.label} ({where})")
    for earlier, changed in case.record.earlier:
        if is_script(run, earlier):
            said = f"{one}: {case.record.label}'s script as it was frozen before; since then: {changed}"
            return case.check("source", UNKNOWN, f"{said} ({where})")
    return case.check("source", FAIL, f"{one}; the frozen script of {case.record.label} is {frozen[:12]} ({where})")


def check_compiler(case: Case) -> Check:
    """No compiler flag that the edition bans, in any spelling, in the script or a helper module."""
    facts, entry = facts_of(case.entries[0].run), case.entries[0]
    if facts is None:
        return case.check("compiler-flags", UNKNOWN, f"{LEFT_OUT} ({case.first(_start)})")
    if case.edition.compiler == Compiler():
        return case.check(
            "compiler-flags", PASS, f"any is allowed under the rules of {case.edition.name} ({case.first(_start)})"
        )
    if "error" in facts:
        return case.check(
            "compiler-flags", UNKNOWN, f"the source cannot be read: {facts['error']} ({case.first(_start)})"
        )
    banned, undecided, allowed = judge_flags(facts, case.edition.compiler)
    shown = [(f"{text} ({_place(entry, module, line)})") for text, module, line in banned or undecided]
    if banned:
        return case.check("compiler-flags", FAIL, f"banned: {counted(shown)}")
    if undecided:
        return case.check("compiler-flags", UNKNOWN, f"cannot be read from the text: {counted(shown)}")
    set_flags = f"only {', '.join(allowed)}" if allowed else "no flag is set"
    return case.check("compiler-flags", PASS, f"{set_flags} ({case.first(_start)})")


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


def check_val_tokens(case: Case) -> Check:
    """The final loss is measured on as many validation tokens as the edition says."""
    wanted, entry = case.edition.val_tokens, case.entries[0]
    for each in case.entries:
        override = each.run.overrides.get("val_tokens")
        if override is not None and override.replace("_", "") != str(wanted):
            at = each.at(each.run.env_line.get("override val_tokens"))
            return case.check("val-tokens", FAIL, f"{override} validation tokens, not {wanted:,} ({at})")
    facts = facts_of(entry.run)
    if facts is None:
        return case.check("val-tokens", UNKNOWN, f"{LEFT_OUT} ({case.first(_start)})")
    given = facts.get("val_tokens", [])
    for value, module, line in given:
        if value is not None and value != wanted:
            where = _place(entry, module, line)
            return case.check("val-tokens", FAIL, f"{value:,} validation tokens, not {wanted:,} ({where})")
    if not given or any(value is None for value, _, _ in given):
        return case.check(
            "val-tokens", UNKNOWN, f"the script does not say in a plain number how many ({case.first(_start)})"
        )
    return case.check("val-tokens", PASS, f"{wanted:,} ({_place(entry, *given[0][1:])})")


def check_validation_reads(case: Case) -> Check:
    """Validation shards are read in validation sections only, never beside a backward pass."""
    entry = case.entries[0]
    facts = facts_of(entry.run)
    if facts is None:
        return case.check("validation-reads", UNKNOWN, f"{LEFT_OUT} ({case.first(_start)})")
    reads = facts.get("validation", [])
    for where, rule in (("training", FAIL), ("elsewhere", UNKNOWN)):
        lines = [_place(entry, "", line) for place, line in reads if place == where]
        if lines:
            said = "read beside a backward pass" if where == "training" else "read outside of a validation section"
            return case.check("validation-reads", rule, f"{said} ({counted(lines)})")
    if not reads:
        return case.check(
            "validation-reads", UNKNOWN, f"no read of validation shards was recognised ({case.first(_start)})"
        )
    return case.check("validation-reads", PASS, f"in validation sections only ({_place(entry, '', reads[0][1])})")


def check_token_stream(case: Case) -> Check:
    """The functions that load the data are those of the record, or of its parent."""
    facts = facts_of(case.entries[0].run)
    if facts is None:
        return case.check("token-stream", UNKNOWN, f"{LEFT_OUT} ({case.first(_start)})")
    mine, unlike, where = facts.get("loader"), "", case.first(_start)
    if not mine:
        return case.check("token-stream", UNKNOWN, f"no data-loading function was recognised ({case.first(_start)})")
    for known in filter(None, (case.record, case.parent)):
        try:
            theirs = read_source(known.script.read_text(encoding="utf-8")).get("loader", {})
        except (OSError, ValueError):
            continue
        changed = sorted(name for name in mine | theirs if mine.get(name) != theirs.get(name))
        if not changed:
            return case.check("token-stream", PASS, f"the data-loading functions are those of {known.label} ({where})")
        unlike = f"{', '.join(changed[:4])} differ from {known.label}: read them"
    unlike = unlike or "no record to compare the loader with: name one by --record"
    return case.check("token-stream", UNKNOWN, f"{unlike} ({where})")


def _start(run: Run) -> int | None:
    """The line at which the script starts in a log."""
    return run.source_line


def _place(entry, module: str, line: int) -> str:
    """file:line of a place in the script; in a helper module, its name and its own line."""
    if module:
        return f"{entry.name}, {printable(module, 80)}.py:{line}"
    return entry.at((entry.run.source_line or 1) + line - 1)
