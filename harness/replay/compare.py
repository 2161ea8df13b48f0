"""Two records side by side: interleaved runs A B B A on one machine, and one plain verdict."""

import dataclasses
import hashlib
import math

from rich.console import Console
from rich.table import Table

from harness.errors import RunFailed, UserError
from harness.replay import runs
from harness.replay.outcome import Result
from harness.replay.plan import Options, make_plan
from harness.replay.replay import Stage, announce, choose, fetch, perform, usable_machine
from timing.comparison import Comparison, compare_paired

Pair = tuple[Result, Result]


def compare(first: str, second: str, pairs: int, options: Options, console: Console) -> dict:
    """Run both records `pairs` times, print what came of each pair, say which of the two is faster; the same as data.

    The order is A B B A A B ..., so that a machine that warms up or slows down favours neither. A comparison that was
    broken off goes on with the pairs it lacks. Raises RunFailed if a run does not finish with a time and a loss.
    """
    options = dataclasses.replace(options, runs=pairs)
    stages = set_stages(first, second, options, console)
    done = {} if options.fresh else finished_pairs(stages)
    done = {number: pair for number, pair in done.items() if number < pairs}
    if done:
        console.print(f"{len(done)} of {pairs} pairs are done already (--fresh starts over)")
    for number in range(pairs):
        if number not in done:
            done[number] = run_pair(stages, number, pairs)
    kept = [done[number] for number in range(pairs)]
    names = [stage.plan.record.label for stage in stages]
    for number, pair in enumerate(kept, start=1):
        check_comparable(number, pair, names)
    console.print(_table(kept, names))
    verdict = conclude(judge(kept), stages, f"({stages[0].plan.label.name}, {len(kept)} pairs)")
    console.print(f"verdict: {verdict}")
    told = [[result.as_data() for result in pair] for pair in kept]
    return {"records": names, "fidelity": stages[0].plan.label.name, "pairs": told, "verdict": verdict}


def conclude(found: Comparison, stages: tuple[Stage, Stage], kind: str) -> str:
    """The verdict in a sentence. Of two different scripts at toy size there is none: there, the loss ranks nothing."""
    names = [stage.plan.record.label for stage in stages]
    if not stages[0].plan.smoke or stages[0].plan.script_sha256 == stages[1].plan.script_sha256:
        return f"{found.sentence(*names)} {kind}"
    time_alone = dataclasses.replace(found, loss=None).sentence(*names)
    return f"none on the records: at toy size neither time nor loss ranks them; of these toy runs, {time_alone} {kind}"


def set_stages(first: str, second: str, options: Options, console: Console) -> tuple[Stage, Stage]:
    """Plan both sides alike. Raises UserError where the two would not be comparable."""
    records = [choose(name, options, console) for name in (first, second)]
    machine = usable_machine()
    plans = [make_plan(record, options, machine) for record in records]
    if plans[0].ranks != plans[1].ranks:
        raise UserError("the two would run on different numbers of ranks: say how many with --gpus")
    announce(plans, console)
    settled = [(plan, fetch(plan, options, console)) for plan in plans]
    digests = "".join(plan.digest(manifest) for plan, manifest in settled)
    keys = [hashlib.sha256(f"{digests} {side}".encode()).hexdigest()[:16] for side in "AB"]
    earlier = [runs.of_plan(options.runs_dir, record.slug, key) for record, key in zip(records, keys)]
    batches = [facts["batch"] for found in earlier for _, facts in found]
    batch = max(batches) if batches and not options.fresh else runs.time_id()
    sides = [
        Stage(plan, machine, manifest, options.runs_dir, key, batch, console)
        for (plan, manifest), key in zip(settled, keys)
    ]
    return sides[0], sides[1]


def finished_pairs(stages: tuple[Stage, Stage]) -> dict[int, Pair]:
    """Pairs of this comparison of which both runs have finished, by number. Half a pair does not count."""
    sides = []
    for stage in stages:
        found = runs.of_plan(stage.runs_dir, stage.plan.record.slug, stage.key)
        good = [(folder, facts) for folder, facts in found if facts["outcome"] == "finished"]
        sides.append({facts["number"]: (folder, facts) for folder, facts in good if facts["batch"] == stage.batch})
    numbers = sorted(set(sides[0]) & set(sides[1]))
    return {number: (Result.of(*sides[0][number]), Result.of(*sides[1][number])) for number in numbers}


def run_pair(stages: tuple[Stage, Stage], number: int, of: int) -> Pair:
    """Run pair `number`, counted from 0: A before B in the even ones, B before A in the odd ones."""
    results = {}
    for side in (0, 1) if number % 2 == 0 else (1, 0):
        title = f"pair {number + 1} of {of}, {'AB'[side]}: {stages[side].plan.record.label}"
        results[side] = perform(stages[side], number, title)
    return results[0], results[1]


def check_comparable(number: int, pair: Pair, names: list[str]) -> None:
    """Raise RunFailed unless both runs of pair `number`, counted from 1, ended with a time and a loss."""
    for name, time, loss in zip(names, _times(pair), _losses(pair)):
        if not math.isfinite(loss):
            raise RunFailed(f"pair {number}: {name} ended at a loss of {loss}: a run that diverged is no match")
        if not 0 < time < math.inf:
            raise RunFailed(f"pair {number}: {name} ended at {time} s by its own clock: too few steps to be timed")


def judge(pairs: list[Pair]) -> Comparison:
    """B against A, by time and by final validation loss, pair by pair."""
    times, losses = zip(*((_times(pair), _losses(pair)) for pair in pairs))
    return compare_paired(*zip(*times), *zip(*losses))


def _times(pair: Pair) -> tuple[float, ...]:
    return tuple(result.train_time_ms / 1000 for result in pair)


def _losses(pair: Pair) -> tuple[float, ...]:
    return tuple(result.losses[-1] if result.losses else math.nan for result in pair)


def _table(pairs: list[Pair], names: list[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("pair", *(f"{name}, {what}" for what in ("s", "loss") for name in names)):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, pair in enumerate(pairs):
        figures = [f"{time:.3f}" for time in _times(pair)] + [f"{loss:.4f}" for loss in _losses(pair)]
        table.add_row(str(number + 1), *figures)
    return table
