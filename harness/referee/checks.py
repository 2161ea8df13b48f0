"""The rules that a log's figures can show: the run is whole, the target is met, the hardware and the data are right.

Each check takes a Case and answers with one Check; together with `clock_checks`, `curve_checks` and `source` they
are the referee's rule book. A check that cannot decide says UNKNOWN.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from harness.archive.record import Record
from harness.referee.submission import OWN_SETTINGS, Entry
from harness.referee.verdict import FAIL, PASS, UNKNOWN, WAIVED, Check, shown_p
from timing.log import Run
from timing.rules import Edition
from timing.stats import KNOWN_SPREAD_MARGIN, USUAL_SPREAD, TargetTest, target_test

PLAUSIBLE_DEVIATIONS = 3.0


@dataclass(frozen=True)
class Case:
    """What a check looks at: one arm's runs, the rules, and what they are held against. `everyone` are all runs handed
    in, of whatever arm; `systems` says that the change is one of systems only; `parent` is the record's parent."""

    entries: tuple[Entry, ...]
    edition: Edition
    everyone: tuple[Entry, ...] = ()
    record: Record | None = None
    parent: Record | None = None
    systems: bool = False
    baseline: tuple[Entry, ...] = ()
    baseline_arms: int = 0

    def check(self, rule: str, status: str, evidence: str, decisive: bool = False) -> Check:
        """A Check under this case's edition."""
        return Check(rule, status, evidence, self.edition.title, decisive)

    def first(self, line_of: Callable[[Run], int | None] = lambda run: None) -> str:
        """file:line in the first log, for evidence that all logs give alike; `line_of` finds the line in a run."""
        return self.entries[0].at(line_of(self.entries[0].run))

    def finished(self) -> tuple[Entry, ...]:
        """The complete runs: the only ones whose last loss and time are final."""
        return tuple(entry for entry in self.entries if entry.run.complete)

    def losses(self) -> list[float]:
        """Final validation losses of the complete runs, nan for one that diverged, in their order."""
        return [entry.run.final_val_loss for entry in self.finished()]


def counted(faults: list[str]) -> str:
    """The first faults in words, and how many there are beyond them."""
    faults = list(dict.fromkeys(faults))
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more


def logs(count: int) -> str:
    """`1 log`, `5 logs`."""
    return f"{count} log{'s' * (count != 1)}"


def environment_line(*names: str) -> Callable[[Run], int | None]:
    """Finds in a run the line of the first of these environment facts that it logs."""
    return lambda run: next((run.env_line[name] for name in names if name in run.env_line), None)


def last_validation(run: Run) -> int | None:
    """The line of the last validation."""
    return next(iter(run.val_line[-1:].tolist()), None)


HARDWARE_LINE = environment_line("world_size", "gpus", "gpu")


def check_complete(case: Case) -> Check:
    """Every run reached the step it planned, and ended with a validation."""
    faults, open_ends = [], []
    for entry in case.entries:
        run = entry.run
        if not run.complete and run.planned_steps is None and not len(run.train_step) and len(run.val_step):
            open_ends.append(f"nothing shows that step {run.steps} was the last ({entry.at(int(run.val_line[-1]))})")
        elif not run.complete:
            last = max([*run.val_line[-1:], *run.train_line[-1:]], default=0)
            faults.append(f"ends at step {run.steps} of {run.planned_steps or 'an unknown number'} ({entry.at(last)})")
        elif run.final_val_loss is None or not math.isfinite(run.final_val_loss):
            faults.append(f"final loss is {run.final_val_loss} ({entry.at(run.val_line[-1])})")
        if run.spliced_line:
            said = "another log starts here, whose script and machine are not read: give it as a file of its own"
            open_ends.append(f"{said} ({entry.at(run.spliced_line)})")
    if faults:
        return case.check("complete", FAIL, counted(faults))
    if open_ends:
        return case.check("complete", UNKNOWN, counted(open_ends), decisive=True)
    n, last = len(case.entries), case.first(lambda run: int(run.val_line[-1]))
    return case.check("complete", PASS, f"{n} of {n} runs reached step {case.entries[0].run.steps} ({last})")


def test_of(case: Case) -> TargetTest | None:
    """The target test over the complete runs, at the level that the edition asks (0.01 where it asks none); None if
    no run is complete."""
    losses = case.losses()
    return target_test(losses, case.edition.target, case.edition.significance or 0.01) if losses else None


def check_target(case: Case) -> Check:
    """The mean final loss reaches the target, as significantly as the edition asks. Only complete runs have one."""
    edition, test = case.edition, test_of(case)
    if test is None:
        return case.check("target", UNKNOWN, f"no run came to its final loss ({case.first()})", decisive=True)
    if test.mean is None:
        diverged = next(entry for entry in case.finished() if not math.isfinite(entry.run.final_val_loss))
        where = diverged.at(int(diverged.run.val_line[-1]))
        return case.check("target", FAIL, f"a final loss is no finite number ({where})", decisive=True)
    where = case.finished()[0].at(int(case.finished()[0].run.val_line[-1]))
    found = f"mean {test.mean:.5f} against {edition.target}, n = {test.n}"
    if test.p_value is not None:
        found += f", p = {shown_p(test.p_value)}"
        relation = ">=" if test.known_spread_holds else "<"
        found += f"; (target - mean) sqrt(n) = {test.known_spread_score:.4f} {relation} {KNOWN_SPREAD_MARGIN}"
    evidence = f"{found} ({where})"
    if edition.significance is None:
        return case.check("target", PASS if test.mean <= edition.target else FAIL, evidence, decisive=True)
    if test.significant:
        return case.check("target", PASS, evidence, decisive=True)
    waived = case.systems and "systems" in edition.waived_for
    if test.mean > edition.target:
        return _above_target(case, test, evidence, waived)
    if waived:
        return case.check("target", WAIVED, f"systems only: significance waived; {evidence}", decisive=True)
    more = "more runs than can be asked" if test.runs_needed is None else f"{test.runs_needed} more runs"
    return case.check(
        "target", UNKNOWN, f"{evidence}; not p < {edition.significance}: {more} like these", decisive=True
    )


def _above_target(case: Case, test: TargetTest, evidence: str, waived: bool) -> Check:
    """A mean above the target is missed, by two runs or more; one run, and a change of systems only (whose p-value is
    waived, not its target), leave it open while chance may have done it."""
    excess = (test.mean - test.target) * math.sqrt(test.n) / USUAL_SPREAD
    if excess > PLAUSIBLE_DEVIATIONS or (test.n > 1 and not waived):
        return case.check("target", FAIL, evidence, decisive=True)
    why = "above the target, and only the significance is waived" if waived else "one run shows no spread"
    return case.check("target", UNKNOWN, f"{evidence}; {why}: more runs", decisive=True)


def check_hardware(case: Case) -> Check:
    """As many GPUs of the official model, or of its class, as the edition asks."""
    asked, faults, unknown, seen = case.edition.hardware, [], [], set()
    if asked is None:
        return case.check("hardware", WAIVED, f"{case.edition.track}: any will do ({case.first(HARDWARE_LINE)})")
    for entry in case.entries:
        run = entry.run
        name, ranks = run.gpu or run.device, run.world_size or run.gpus
        at = entry.at(HARDWARE_LINE(run))
        models = name.split(" + ") if name else []
        official = bool(models) and all(asked.gpu in model for model in models)
        same = bool(models) and all(any(each in m for each in (asked.gpu, *asked.same_class)) for m in models)
        if ranks is not None and ranks != asked.gpus:
            faults.append(f"{f'{ranks} x {name}' if name else f'{ranks} ranks, no GPU'}, not {asked.gpus} ({at})")
        elif run.gpus is not None and run.gpus < asked.gpus:
            faults.append(f"{run.gpus} GPUs in the machine, not {asked.gpus} ({at})")
        elif name and not same:
            faults.append(f"{name} is not of the class of {asked.gpu} ({at})")
        elif not name or ranks is None:
            unknown.append(f"the log does not say {'how many GPUs' if name else 'which GPUs'}")
        else:
            seen.add(f"{ranks} x {name}" + ("" if official else f", of {asked.gpu}'s class: its times are its own"))
    if faults:
        return case.check("hardware", FAIL, counted(faults))
    if unknown:
        return case.check("hardware", UNKNOWN, f"{counted(unknown)} ({case.first(HARDWARE_LINE)})")
    return case.check("hardware", PASS, f"{'; '.join(sorted(seen))} ({case.first(HARDWARE_LINE)})")


def check_settings(case: Case) -> Check:
    """No setting of the record was overridden."""
    faults = []
    for entry in case.entries:
        for name, value in entry.run.overrides.items():
            if name not in OWN_SETTINGS:
                faults.append(f"{name}={value} ({entry.at(entry.run.env_line.get(f'override {name}'))})")
    if faults:
        return case.check("settings", FAIL, f"a run with overrides is no record run: {counted(faults)}")
    return case.check("settings", PASS, f"no override in {logs(len(case.entries))} ({case.first()})")


def check_data(case: Case) -> Check:
    """The tokens are FineWeb's, by the manifest that the log names and the run folder describes."""
    faults, unknown, known = [], [], set()
    for entry in case.entries:
        manifest = entry.facts.get("manifest")
        manifest = manifest if isinstance(manifest, dict) else {}
        at = entry.at(entry.run.env_line.get("manifest"))
        name, digest = str(manifest.get("name") or ""), str(manifest.get("digest") or "")
        if not entry.run.manifest:
            unknown.append("the log names no manifest")
        elif not name:
            unknown.append(f"manifest {entry.run.manifest[:12]} is not described beside the log")
        elif digest != entry.run.manifest:
            faults.append(f"the log names manifest {entry.run.manifest[:12]}, run.json {digest[:12]} ({at})")
        elif name != case.edition.corpus:
            faults.append(f"trained on {name}, not {case.edition.corpus}: its loss proves nothing here ({at})")
        else:
            known.add(f"{name}, manifest {digest[:12]} ({at})")
    if faults:
        return case.check("data", FAIL, counted(faults))
    if unknown:
        return case.check("data", UNKNOWN, f"{counted(unknown)} ({case.first(environment_line('manifest'))})")
    return case.check("data", PASS, counted(sorted(known)))
