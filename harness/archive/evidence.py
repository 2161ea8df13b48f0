"""What a run of ours shows of its record: the pace of its steps, its losses beside the published script's, in words."""

import itertools
import math
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.archive.code import ran
from harness.archive.published import read_table
from harness.archive.record import Record
from harness.archive.run_folder import LOG
from harness.errors import UserError
from timing.log import Run, read_log

STAND_IN = "books"  # the corpus of standin.csv
NO_COOLDOWN = {"cooldown_iterations": 1, "cooldown_fraction": 0.001}  # at most


@dataclass(frozen=True)
class Evidence:
    """A run, by its folder, its facts (`run.json`) and its log. `vouched` is the corpus that the run itself does not
    name; `losses` has the columns step, ours, published."""

    folder: Path
    facts: dict
    run: Run
    vouched: str
    shared: bool
    stages_ms: list[float]  # median step of each stage of the batch's size; none where nothing could be timed
    losses: pd.DataFrame

    @property
    def pace_ms(self) -> float | None:
        """The median step; of stages of equal length, the mean of theirs."""
        return statistics.fmean(self.stages_ms) if self.stages_ms else None

    @property
    def difference(self) -> tuple[float, int] | None:
        """The largest difference of a loss after step 0 to the published script's, signed, and out of how many."""
        trained = self.losses[self.losses.step > 0]
        apart = (trained.ours - trained.published).dropna()
        return (float(apart[apart.abs().idxmax()]), len(apart)) if len(apart) else None

    @property
    def machine(self) -> str:
        """Such as `2x H200, torch 2.11.0+cu130`."""
        name = self.facts["machine"]["gpu"].removeprefix("NVIDIA ")
        return f"{self.facts['gpus']}x {name}, torch {self.facts['versions']['torch']}"


def read_evidence(
    folder: Path, facts: dict, shared: bool = False, corpus: str = "", stages: int = 1, root=None
) -> Evidence:
    """The evidence in a run folder. `shared` says that other work ran on its cards: its times then show nothing;
    `corpus` what it was trained on; `stages` how many lengths its steps have.

    Raises LogError for a log that cannot be read, UserError without `standin.csv` or for another corpus than the run's.
    """
    run, named = read_log(folder / LOG), _corpus(facts)
    if corpus and named and corpus != named:
        raise UserError(f"{folder} was trained on {named}, by the manifest of its data, not on {corpus}")
    losses = pd.DataFrame({"step": run.val_step, "ours": run.val_loss})
    published = comparable(read_table("standin.csv", root), facts, named or corpus)
    losses = losses.merge(published, how="left", on="step")
    medians = [] if shared else stage_medians(run, facts, stages)
    return Evidence(folder, facts, run, "" if named else corpus, shared, medians, losses)


def stage_medians(run: Run, facts: dict, stages: int) -> list[float]:
    """Median step of each of so many equal parts of a run's schedule, its extension left out, as `Run.median_step_ms`
    takes it; none where a part has no step that can be timed."""
    if stages == 1:
        return [] if run.median_step_ms is None else [run.median_step_ms]
    scheduled = run.steps - int(facts["overrides"].get("extension_iterations", 0))
    ends = [math.ceil(scheduled * i / stages) for i in range(stages + 1)]
    first, last, times = run.train_step[:-2], run.train_step[2:], run.train_time_ms[2:] - run.train_time_ms[:-2]
    within = [(first > low) & (last <= high) & (last > first) & (times > 0) for low, high in itertools.pairwise(ends)]
    found = [float(np.median(times[good] / (last - first)[good])) for good in within if good.any()]
    return found if len(found) == stages else []


def _corpus(facts: dict) -> str:
    """The corpus that a run's data folder named, "" if it had no manifest."""
    return (facts.get("manifest") or {}).get("name") or ""


def comparable(reference: pd.DataFrame, facts: dict, corpus: str) -> pd.DataFrame:
    """The published script's losses, one a step, that this run's may be held against: on the same corpus and as many of
    its validation tokens, under the same schedule. That is a whole one of as many steps, or the beginning of the
    published one: there the run must have put its cooldown out of the way."""
    given, none = facts["overrides"], pd.DataFrame({"step": [], "published": []})
    if corpus != STAND_IN:
        return none
    same = (reference.number == facts["record"]) & (reference.val_tokens.astype(str) == str(given.get("val_tokens")))
    whole = reference.num_iterations.astype(str) == str(given.get("num_iterations"))
    begun = (reference.schedule == "published") & any(
        float(given.get(name, "inf")) <= most for name, most in NO_COOLDOWN.items()
    )
    rows = reference[same & (whole | begun)]
    rows = rows[rows.seed == rows.seed.min()]
    return rows[["step", "val_loss"]].rename(columns={"val_loss": "published"}) if len(rows) else none


def paragraph(evidence: Evidence, record: Record) -> str:
    """Markdown for the record's `logs/README.md`: what ran, at what pace, what was changed, and the losses."""
    facts, run = evidence.facts, evidence.run
    script = "as frozen" if facts["script_sha256"] == record.sha256 else "as it was frozen before"
    if script != "as frozen" and ran(evidence.folder, facts, record.script):
        script = "as frozen but for its words"
    named, seed = _corpus(facts), facts.get("seed")
    changed = ", ".join(f"`{name} {value}`" for name, value in facts["overrides"].items())
    said = [f"**`{facts['run_id']}`**, of the script {script}: {evidence.machine}, {run.steps:,} steps, {_peak(run)}."]
    said += [_pace(evidence, record), f"Overridden: {changed}." if changed else "Nothing was overridden."]
    corpus = named or (f"{evidence.vouched}, whose manifest was not there" if evidence.vouched else "unknown")
    said += [f"Fidelity: {facts['fidelity']}; corpus {corpus}; seed {seed}."]
    if (named or evidence.vouched) == STAND_IN:
        said += ["No loss here is to be held against 3.28."]
    return f"{textwrap.fill(' '.join(said), 120, break_on_hyphens=False)}\n\n{_table(evidence.losses)}\n"


def _peak(run: Run) -> str:
    return "peak memory unknown" if run.peak_memory_mib is None else f"peak {run.peak_memory_mib / 1024:.1f} GiB"


def _pace(evidence: Evidence, record: Record) -> str:
    if evidence.shared:
        return "Its cards were shared, so its times say nothing."
    if evidence.pace_ms is None:
        return "Its steps are too few for a pace."
    ranks, listed = evidence.facts["gpus"], record.listed
    if len(evidence.stages_ms) > 1:
        ours, theirs = evidence.stages_ms, listed.stages_ms
        most = f"{_list(8 / ranks * ms for ms in theirs)}: {_list(theirs, 1)} ms x {8 // ranks}"
        return f"Median steps of its stages: {_list(ours)} ms (at most {most})."
    published = listed.step_avg_ms
    most = f" (at most {published * 8 / ranks:,.0f}: {published:.2f} ms x {8 // ranks})" if published else ""
    return f"Median step: {evidence.pace_ms:,.0f} ms{most}."


def _list(figures, digits: int = 0) -> str:
    return ", ".join(f"{figure:,.{digits}f}" for figure in figures)


def _table(losses: pd.DataFrame) -> str:
    known = losses.published.notna().any()
    lines = (
        ["| step | ours | published script |", "| --- | ---: | ---: |"]
        if known
        else ["| step | ours |", "| --- | ---: |"]
    )
    for row in losses.itertuples():
        theirs = f" {'' if pd.isna(row.published) else f'{row.published:.4f}'} |" if known else ""
        lines.append(f"| {row.step} | {row.ours:.4f} |{theirs}")
    return "\n".join(lines)
