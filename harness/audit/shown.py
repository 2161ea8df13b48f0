"""The audit of `[shown]`: the run that is said to prove a frozen script is there, and is what it is said to be."""

from harness.archive.code import ran
from harness.archive.record import Record
from harness.archive.run_folder import FACTS
from harness.archive.shown import NONE, last_step, read_run
from harness.audit.finding import FAIL, NOTE, PASS, Finding
from harness.errors import UserError


def audit_shown(record: Record) -> Finding:
    """A frozen script ran at real size on GPUs, or the record says why it has not."""
    shown = record.shown
    if not record.sha256:
        return Finding(record.number, "shown", NOTE, "a draft: nothing is frozen that could be shown")
    if shown is None:
        return Finding(record.number, "shown", FAIL, "[shown] is missing: which run proves the frozen script?")
    if shown.run == NONE:
        return Finding(record.number, "shown", NOTE, shown.text)
    try:
        facts = read_run(record.logs / shown.run / FACTS)
    except UserError as error:
        return Finding(record.number, "shown", FAIL, str(error))
    faults = [text for text, wrong in _faults(record, facts) if wrong]
    if faults:
        return Finding(record.number, "shown", FAIL, f"{shown.run}: {'; '.join(faults)}")
    return Finding(record.number, "shown", PASS, f"{shown.run}: {shown.text}")


def _faults(record: Record, facts: dict):
    """(what is wrong, whether it is) for the run that [shown] names."""
    digest, fidelity = str(facts.get("script_sha256", "")), facts.get("fidelity")
    other = not ran(record.logs / record.shown.run, facts, record.script)
    machine = f"{facts.get('gpus')}x {facts.get('machine', {}).get('gpu')}"
    yield f"it ran {digest[:12] or 'an unknown script'}, frozen is {record.sha256[:12]}", other
    yield f"its fidelity is {fidelity}, which is not real size", fidelity in (None, "smoke")
    yield f"it is {facts.get('outcome')}", facts.get("outcome") != "finished"
    yield f"it ran on {machine}, not on {record.shown.machine}", machine != record.shown.machine
    yield f"it trained {last_step(facts)} steps, not {record.shown.steps}", last_step(facts) != record.shown.steps
