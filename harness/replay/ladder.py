"""An ablation ladder: neighbouring records at equal tokens, in turn, so that what each technique brings here shows."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console

from harness.archive.find import discover, number_key, resolve
from harness.archive.record import Record
from harness.errors import UserError
from harness.files import write_whole
from harness.replay import runs
from harness.replay.cost import Cost, announce_cost, cost_of
from harness.replay.outcome import Result
from harness.replay.plan import Options, make_plan
from harness.replay.replay import Stage, announce, ask_trust, fetch, perform, usable_machine
from harness.replay.torchrun import check_port

FILE = "ladder.json"


@dataclass(frozen=True)
class Climb:
    """What the user asked for beyond a replay's options: runs of a rung, dollars per GPU-hour, the most to spend.

    `budget` is in dollars; None is no limit. `dry` ends after the estimate.
    """

    rounds: int = 3
    price: float = 3.0
    budget: float | None = None
    dry: bool = False


def rungs(names: tuple[str, ...]) -> list[Record]:
    """The records of a ladder, oldest first: `05..12` is every one in the archive from 05 to 12, else those named.

    Raises UserError for fewer than two, and for an unknown name.
    """
    found: dict[str, Record] = {}
    for name in (part for each in names for part in each.split(",") if part):
        first, dots, last = name.partition("..")
        ends = [resolve(end) for end in ((first, last) if dots else (first,))]
        low, high = (number_key(end.number) for end in (ends[0], ends[-1]))
        between = [record for record in discover() if low <= number_key(record.number) <= high] if dots else ends
        found |= {record.slug: record for record in between}
    if len(found) < 2:
        raise UserError("a ladder has two rungs or more: name records, or a stretch of them such as 05..12")
    return sorted(found.values(), key=lambda record: (record.date, number_key(record.number)))


def equal_steps(records: list[Record], scale: float) -> dict[str, int]:
    """Steps of each record, by slug, at which all have trained on the same tokens, to within a step: `scale` times the
    tokens of the shortest of them, so that none goes beyond its own schedule. Raises UserError where one is unknown."""
    if unknown := [record.label for record in records if not (record.listed.steps and record.listed.tokens_per_step)]:
        raise UserError(f"{', '.join(unknown)}: steps or tokens a step are not known, so tokens cannot be made equal")
    tokens = scale * min(record.listed.steps * record.listed.tokens_per_step for record in records)
    return {record.slug: max(1, round(tokens / record.listed.tokens_per_step)) for record in records}


def climb(names: tuple[str, ...], ask: Climb, options: Options, console: Console) -> Path | None:
    """Replay the records of a ladder in turn, upwards and downwards, and write what came of it; None for a dry run.

    A ladder that was broken off goes on with the runs it lacks. Raises UserError where the estimate is beyond the
    budget, and RunFailed if a run does not finish.
    """
    if ask.rounds < 1:
        raise UserError(f"--rounds {ask.rounds}: at least 1")
    stages = set_stages(rungs(names), options, console)
    done = [{} if options.fresh else finished(stage, ask.rounds) for stage in stages]
    lacking = [ask.rounds - len(results) for results in done]
    costs = [cost_of(stage, count, ask.price) for stage, count in zip(stages, lacking)]
    announce_cost(stages, costs, console)
    total = sum((cost for cost in costs), Cost())
    if ask.budget is not None and total.dollars > ask.budget:
        raise UserError(f"about ${total.dollars:,.2f} is beyond --budget {ask.budget:g}: lower --scale or --rounds")
    if ask.dry:
        return None
    for number in range(ask.rounds):
        order = range(len(stages)) if number % 2 == 0 else reversed(range(len(stages)))
        for rung in order:
            if number not in done[rung]:
                title = f"round {number + 1} of {ask.rounds}, {stages[rung].plan.record.label}"
                done[rung][number] = perform(stages[rung], number, title)
    return keep(stages, [[results[number] for number in range(ask.rounds)] for results in done])


def set_stages(records: list[Record], options: Options, console: Console) -> list[Stage]:
    """Plan every rung on the same tokens; at toy size, where tokens are the record's own, on its own toy steps."""
    machine = usable_machine()
    smoke = options.smoke or not machine.gpus
    steps = {} if smoke else equal_steps(records, options.scale)
    plans = []
    for record in records:
        ask_trust(record, options.trust or options.dry_run)
        own = options
        if not smoke:
            own = dataclasses.replace(options, scale=steps[record.slug] / record.listed.steps)
        plans.append(make_plan(record, own, machine))
    check_port(options.nodes)
    announce(plans, console)
    settled = [(plan, fetch(plan, options, console)) for plan in plans]
    digests = "".join(plan.digest(manifest) for plan, manifest in settled)
    keys = [hashlib.sha256(f"ladder {digests} {rung}".encode()).hexdigest()[:16] for rung in range(len(settled))]
    earlier = [runs.of_plan(options.runs_dir, plan.record.slug, key) for (plan, _), key in zip(settled, keys)]
    batches = [facts["batch"] for found in earlier for _, facts in found]
    batch = max(batches) if batches and not options.fresh else runs.time_id()
    return [
        Stage(plan, machine, manifest, options.runs_dir, key, batch, console)
        for (plan, manifest), key in zip(settled, keys)
    ]


def finished(stage: Stage, rounds: int) -> dict[int, Result]:
    """Runs of this rung that are done already, by round."""
    found = runs.of_plan(stage.runs_dir, stage.plan.record.slug, stage.key)
    good = [(folder, facts) for folder, facts in found if facts["outcome"] == "finished"]
    mine = {facts["number"]: (folder, facts) for folder, facts in good if facts["batch"] == stage.batch}
    return {number: Result.of(*run) for number, run in mine.items() if number < rounds}


def keep(stages: list[Stage], results: list[list[Result]]) -> Path:
    """Write `ladder.json`, from which the chart is drawn: each rung's runs here, and its published figures."""
    rows = []
    for stage, mine in zip(stages, results):
        record, listed = stage.plan.record, stage.plan.record.listed
        rows.append(
            {
                "record": record.number,
                "title": record.title,
                "steps": mine[0].steps,
                "tokens_per_step": listed.tokens_per_step,
                "step_ms": [result.step_ms or result.train_time_ms / max(result.steps, 1) for result in mine],
                "losses": [result.losses[-1] if result.losses else None for result in mine],
                "runs": [result.folder.name for result in mine],
                "listed": {"steps": listed.steps, "step_ms": listed.step_avg_ms},
            }
        )
    names = {result.facts["fidelity"] for mine in results for result in mine}
    facts = {
        "fidelity": sorted(names),
        "machine": stages[0].machine.facts(stages[0].plan.ranks),
        "rungs": rows,
    }
    folder = stages[0].runs_dir / "ladders" / f"{rows[0]['record']}-{rows[-1]['record']}-{stages[0].batch}"
    folder.mkdir(parents=True, exist_ok=True)
    return write_whole(folder / FILE, json.dumps(facts, indent=1) + "\n")


def neighbours(facts: dict) -> list[tuple[dict, dict]]:
    """Each rung of a `ladder.json` with the one above it."""
    return list(pairwise(facts["rungs"]))
