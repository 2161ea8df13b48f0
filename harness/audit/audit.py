"""`harness audit`: every record held against its hash, its contract, the public tables and its own logs."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import click

from harness.archive.find import ROOT, discover
from harness.archive.published import read_table
from harness.archive.record import Record
from harness.audit.facts import audit_curve, audit_ledger, audit_listed, audit_logs
from harness.audit.finding import FAIL, NOTE, PASS, Finding
from harness.audit.script import audit_compiler, audit_contract, audit_hash, audit_imports
from harness.audit.shown import audit_shown

COLOURS = {PASS: "green", FAIL: "red", NOTE: "yellow"}


@dataclass(frozen=True)
class Audit:
    """All findings, record by record."""

    findings: tuple[Finding, ...]

    @property
    def failures(self) -> list[Finding]:
        """What must be put right."""
        return [finding for finding in self.findings if finding.status == FAIL]


def audit(root: Path | str | None = None) -> Audit:
    """Audit all records below `root` (default: the archive). Static: nothing is run, nothing is fetched.

    Raises UserError for a broken `record.toml` or a missing table.
    """
    root = Path(root or ROOT)
    tables = {name: read_table(f"{name}.csv", root) for name in ("leaderboard", "runs", "curves")}
    return Audit(tuple(finding for record in discover(root, strict=True) for finding in _record(record, tables)))


def _record(record: Record, tables: dict) -> list[Finding]:
    """The findings about one record, each rule's in a line."""
    found = [audit_hash(record), *audit_contract(record), audit_imports(record), audit_compiler(record)]
    found += [*audit_listed(record, tables["leaderboard"]), audit_curve(record, tables["curves"])]
    return [*found, *audit_ledger(record, tables["runs"]), *audit_logs(record), audit_shown(record)]


def to_json(every: bool, root: Path | str | None = None) -> int:
    """Print the same findings as JSON; the exit code likewise."""
    result = audit(root)
    told = [dataclasses.asdict(finding) for finding in result.findings if every or finding.status != PASS]
    click.echo(json.dumps(told, indent=1))
    return 1 if result.failures else 0


def show(every: bool, root: Path | str | None = None) -> int:
    """Print failures and notes (`every`: also what passes) and how many there are; 1 if anything fails, else 0."""
    result = audit(root)
    for finding in result.findings:
        if every or finding.status != PASS:
            status = click.style(f"{finding.status.upper():5}", fg=COLOURS[finding.status])
            click.echo(f"{status} {finding.record:4} {finding.rule:11} {finding.text}")
    counts = {status: sum(finding.status == status for finding in result.findings) for status in COLOURS}
    click.echo(f"{counts[PASS]} pass, {counts[NOTE]} notes, {counts[FAIL]} fail")
    return 1 if result.failures else 0
