"""A watched run: what is done once it goes wrong, and every attempt kept."""

import dataclasses

from harness.errors import RunFailed
from harness.replay.anomaly import Breach, Watcher
from harness.replay.outcome import Result
from harness.replay.plan import Options, make_plan
from harness.replay.remedies import remedies
from harness.replay.replay import Stage, Stopped, perform


def watched(stage: Stage, options: Options, run: int, title: str) -> Result:
    """Run number `run` of the stage, watched as the options say; under `fallback`, again with the next remedy.

    A run with a remedy in it has its settings overridden, so it is `shortened` at most. Raises RunFailed once
    nothing is left to try, and as `perform` does.
    """
    mode = options.watching
    if mode is None or stage.plan.nodes.rank:
        return perform(stage, run, title)
    attempts: list[dict] = []
    ways = remedies(stage.plan.settings, stage.plan.overrides) if mode == "fallback" else iter(())
    remedy, now = None, stage
    while True:
        try:
            return perform(now, run, title, _watcher(now, mode), {"on_anomaly": mode, "attempts": attempts.copy()})
        except Stopped as stopped:
            attempts.append(_attempt(stopped, remedy and remedy.words))
            remedy = next(ways, None)
            if remedy is None:
                raise RunFailed(f"{stopped}{_given_up(attempts)}") from None
        stage.console.print(f"{title} stopped {attempts[-1]['why']}; again with {remedy.words}")
        changed = dataclasses.replace(options, assignments=(*options.assignments, *remedy.assignments))
        plan = make_plan(stage.plan.record, changed, stage.machine)
        now = dataclasses.replace(stage, plan=plan)


def _watcher(stage: Stage, mode: str) -> Watcher:
    return Watcher(stage.plan.reference, stops=mode != "continue")


def _attempt(stopped: Stopped, remedy: str | None) -> dict:
    """What `run.json` keeps of an attempt that was stopped; `remedy` is None for the first."""
    breach: Breach = stopped.breach
    why = f"at step {breach.step}: {breach.reason}"
    return {"run_id": stopped.folder.name, "remedy": remedy, "why": why, **dataclasses.asdict(breach)}


def _given_up(attempts: list[dict]) -> str:
    tried = [attempt["remedy"] for attempt in attempts if attempt["remedy"]]
    return f"\nnothing is left to fall back to after: {', '.join(tried)}" if tried else ""
