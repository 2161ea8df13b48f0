"""Replay a record: plan, data, one run after the other, and what they show."""

from rich.console import Console

from harness.errors import UserError
from harness.replay import runs
from harness.replay.attempts import watched
from harness.replay.outcome import Result, report, weakest
from harness.replay.plan import Options
from harness.replay.replay import Stage, choose, rehearsed, settle, usable_machine


def replay(name: str, options: Options, console: Console) -> dict:
    """Run the record that `name` means, report on it, and return the report as data.

    Several runs are taken up where an earlier call left them; the user who asks for one run gets one. With `dry_run`
    nothing is run, fetched or written. Raises RunFailed if it does not run or does not hold.
    """
    if options.watching == "fallback" and options.nnodes > 1:
        raise UserError("--on-anomaly fallback starts again on this machine alone: with --nnodes, use stop or continue")
    record = choose(name, options, console)
    machine = usable_machine()
    if options.dry_run:
        return rehearsed(record, options, machine, console)
    plan, manifest = settle(record, options, machine, console)
    key = plan.digest(manifest)
    earlier = [] if options.fresh or options.runs == 1 else runs.of_plan(options.runs_dir, record.slug, key)
    batch = earlier[-1][1]["batch"] if earlier else runs.time_id()
    stage = Stage(plan, machine, manifest, options.runs_dir, key, batch, console)
    results = [Result.of(folder, facts) for folder, facts in earlier if facts["outcome"] == "finished"][: options.runs]
    if results:
        console.print(f"{len(results)} of {options.runs} runs are done already (--fresh starts over)")
    for run in range(len(results), options.runs):
        of = f", run {run + 1} of {options.runs}" if options.runs > 1 else ""
        results.append(watched(stage, options, run, record.label + of))
    verdict = report(plan, results, manifest, console, guard=options.guard)
    label = weakest(plan, results)
    facts = {"record": record.number, "slug": record.slug, "fidelity": label.name, "proves": label.proves}
    return facts | {"runs": [result.as_data() for result in results], "verdict": verdict}
