"""A verdict: checks, what they say of an arm, and the line that sums them up.

Every text that came from a log passes `printable` on its way in.
"""

from dataclasses import dataclass, field

from timing.comparison import Comparison
from timing.log import printable
from timing.stats import TargetTest

PASS, FAIL, WAIVED, UNKNOWN = "pass", "fail", "waived", "unknown"
HOLDS, FAILS, INCONCLUSIVE = "holds", "fails", "inconclusive"
EXIT_CODES = {HOLDS: 0, FAILS: 1, INCONCLUSIVE: 3}
EVIDENCE_LENGTH = 400


@dataclass(frozen=True)
class Check:
    """One rule applied: `status` is "pass", "fail", "waived" or "unknown"; `evidence` one line with file:line.

    `decisive` says that the verdict cannot be HOLDS while this is unknown.
    """

    rule: str
    status: str
    evidence: str
    edition: str = ""
    decisive: bool = False

    def __post_init__(self):
        object.__setattr__(self, "evidence", printable(self.evidence, EVIDENCE_LENGTH))

    @property
    def blocks(self) -> bool:
        """Whether it leaves open what must be decided before anything holds."""
        return self.status == UNKNOWN and self.decisive


@dataclass(frozen=True)
class Judgement:
    """One arm under one edition. `test` is None if no run is complete; times are in seconds, as the edition counts
    them; `time_uncertainty` comes from converting between eras and `time_note` says how."""

    arm: str
    edition: str
    target: float
    checks: tuple[Check, ...]
    runs: tuple[dict, ...]
    test: TargetTest | None
    mean_time: float | None
    std_time: float | None
    mean_official_time: float | None
    time_uncertainty: float
    time_note: str
    comparison: Comparison | None = None

    @property
    def verdict(self) -> str:
        """FAILS if any check fails; INCONCLUSIVE if a decisive one is unknown; else HOLDS, on what the logs show."""
        if self.named(FAIL):
            return FAILS
        return INCONCLUSIVE if any(check.blocks for check in self.checks) else HOLDS

    @property
    def n(self) -> int:
        """Complete runs: those that mean, deviation and p-value are of."""
        return self.test.n if self.test else 0

    @property
    def runs_needed(self) -> int | None:
        """Further runs that would decide the target; 0 if it is decided, None if no number would."""
        if any(check.rule == "target" and check.status == UNKNOWN for check in self.checks):
            return self.test.runs_needed if self.test else None
        return 0

    def named(self, status: str) -> list[str]:
        """Names of the rules with this status, in order, each once."""
        return list(dict.fromkeys(check.rule for check in self.checks if check.status == status))


@dataclass(frozen=True)
class Verdict:
    """The whole answer: `judged` is the arm that the verdict concerns, `today` the same under the latest edition (None
    if that is the same one), `others` the remaining arms, `notes` what was left out; `guessed` if nothing says that the
    judged arm is the one that is meant."""

    judged: Judgement
    today: Judgement | None = None
    others: tuple[Judgement, ...] = ()
    notes: tuple[str, ...] = field(default=())
    guessed: bool = False

    @property
    def verdict(self) -> str:
        """ "holds", "fails" or "inconclusive". An arm that was only guessed does not fail the others, which may be
        meant: it fails if they all do."""
        if self.guessed and not all(each.verdict == FAILS for each in (self.judged, *self.others)):
            return INCONCLUSIVE
        return self.judged.verdict

    @property
    def exit_code(self) -> int:
        """0 HOLDS, 1 FAILS, 3 INCONCLUSIVE."""
        return EXIT_CODES[self.verdict]

    @property
    def line(self) -> str:
        """The verdict in one line, as `verdict_line` gives it."""
        return verdict_line(self)


def verdict_line(judgement: Judgement | Verdict) -> str:
    """The verdict in one line, with what it rests on and what it does not show."""
    word = judgement.verdict.upper()
    if isinstance(judgement, Verdict):
        judgement = judgement.judged
    detail = figures(judgement)
    if word == "INCONCLUSIVE":
        more = judgement.runs_needed
        word += f" ({more} more run{'s' * (more != 1)})" if more else ""
    line = f"{word} under the rules of {judgement.edition}: {detail}"
    for status, introduction in ((FAIL, "broken"), (UNKNOWN, "not shown")):
        if rules := judgement.named(status):
            line += f"; {introduction}: {', '.join(rules)}"
    return line


def figures(judgement: Judgement) -> str:
    """Mean loss, p and time, as far as the runs give them."""
    test, parts = judgement.test, []
    if test is None or test.mean is None:
        parts.append("no final loss")
    else:
        parts.append(f"mean {test.mean:.5f}" + (f" ± {test.std:.5f}" if test.std is not None else ""))
        parts.append(f"p {shown_p(test.p_value)}" if test.p_value is not None else "no p-value")
    of_all = f" of {len(judgement.runs)}" if judgement.n < len(judgement.runs) else ""
    parts.append(f"n = {judgement.n}{of_all}")
    if judgement.mean_time is not None:
        spread = f" ± {judgement.std_time:.3f}" if judgement.std_time is not None else ""
        parts.append(f"{judgement.mean_time:.3f} s{spread}")
    if judgement.mean_official_time is not None and judgement.mean_official_time != judgement.mean_time:
        parts.append(f"{judgement.mean_official_time:.3f} ± {judgement.time_uncertainty:.3f} s by that edition's clock")
    return ", ".join(parts)


def shown_p(p: float) -> str:
    """A p-value with four decimals, or two figures where those would be zeros."""
    return f"{p:.4f}" if p >= 0.001 else f"{p:.2g}"
