"""The audit of a train script by its text alone: its hash, its shape, its imports, its compiler flags."""

import ast
import hashlib
import sys

from harness.archive.outline import docstring, sections
from harness.archive.record import Record
from harness.archive.settings import read_settings
from harness.audit.finding import FAIL, NOTE, PASS, Finding
from harness.errors import UserError
from harness.referee.source.rules import judge_flags, read_source
from timing.rules import VALIDATION_TOKENS, RulesError, edition

SECTIONS = ("Settings", "Kernels", "Optimizers", "Model", "Data", "Setup", "Warmup", "Training")
COMMON_SETTINGS = ("data_dir", "log_file", "num_iterations", "val_tokens", "val_loss_every", "seed", "telemetry_every")
PACKAGES = {"torch", "numpy", "triton"}


def audit_hash(record: Record) -> Finding:
    """The script is the one that was frozen."""
    digest = record.script_sha256()
    if not record.sha256:
        return Finding(record.number, "hash", NOTE, f"a draft: train.py is not frozen ({digest[:12]})")
    if digest != record.sha256:
        return Finding(record.number, "hash", FAIL, f"train.py is {digest[:12]}, frozen was {record.sha256[:12]}")
    return Finding(record.number, "hash", PASS, f"frozen as {digest[:12]}")


def audit_contract(record: Record) -> list[Finding]:
    """An opening docstring, the sections in their order, the common settings with the record's own values."""
    source, faults = _text(record), []
    if not docstring(source).strip():
        faults.append("no docstring opens it")
    titles = [section.title for section in sections(source)][1:]
    if tuple(titles) != SECTIONS:
        faults.append(f"its sections are {', '.join(titles) or 'none'}, not {', '.join(SECTIONS)}")
    try:
        settings = read_settings(record.script) or {}
    except UserError as error:
        return [Finding(record.number, "contract", FAIL, str(error))]
    if missing := [name for name in COMMON_SETTINGS if name not in settings]:
        faults.append(f"its settings lack {', '.join(missing)}")
    expected = {"val_tokens": VALIDATION_TOKENS, "num_iterations": record.listed.steps}
    for name, value in expected.items():
        given = settings[name].default if name in settings else None
        if value is not None and given is not None and given != value:
            faults.append(f"{name} is {given}, not {value}")
    if unknown := [name for name in record.smoke if name not in settings]:
        faults.append(f"[smoke] overrides {', '.join(unknown)}, which it does not have")
    if faults:
        return [Finding(record.number, "contract", FAIL, fault) for fault in faults]
    return [Finding(record.number, "contract", PASS, "docstring, sections and common settings")]


def audit_imports(record: Record) -> Finding:
    """Only torch, numpy, triton and the standard library are imported."""
    try:
        tree = ast.parse(_text(record))
    except SyntaxError as error:
        return Finding(record.number, "imports", FAIL, f"not Python: {error.msg}, line {error.lineno}")
    allowed, foreign = PACKAGES | set(sys.stdlib_module_names), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            foreign += [alias.name for alias in node.names if alias.name.split(".")[0] not in allowed]
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] not in allowed):
            foreign.append(node.module or ".")
    if foreign:
        return Finding(record.number, "imports", FAIL, f"imports {', '.join(foreign)}")
    return Finding(record.number, "imports", PASS, "torch, numpy, triton and the standard library only")


def audit_compiler(record: Record) -> Finding:
    """No compiler flag that the record's own edition of the rules bans."""
    try:
        rules = edition(record.edition)
    except RulesError as error:
        return Finding(record.number, "compiler", FAIL, f"[rules] edition: {error}")
    facts = read_source(_text(record))
    if "error" in facts:
        return Finding(record.number, "compiler", FAIL, f"train.py cannot be read: {facts['error']}")
    if rules.compiler.settings is None:
        return Finding(record.number, "compiler", PASS, f"any flag was allowed under the rules of {rules.name}")
    banned, undecided, allowed = judge_flags(facts, rules.compiler)
    if banned or undecided:
        shown = "; ".join(f"{text} (train.py:{line})" for text, _, line in banned or undecided)
        said = "banned" if banned else "cannot be read from the text"
        return Finding(record.number, "compiler", FAIL, f"{said}: {shown}")
    return Finding(record.number, "compiler", PASS, f"only {', '.join(allowed)}" if allowed else "no flag is set")


def script_hashes(record: Record) -> set[str]:
    """The frozen hash, and that of the script as it stands."""
    return {record.sha256, hashlib.sha256(record.script.read_bytes()).hexdigest()} - {""}


def _text(record: Record) -> str:
    try:
        return record.script.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{record.script} cannot be read: {error}") from None
