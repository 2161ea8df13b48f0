"""`--dry-run`: what a replay would do, fetch, cost and prove, before any of it is done."""

from harness.archive import places
from harness.errors import UserError
from harness.machine import Machine
from harness.replay.plan import Options, Plan
from harness.replay.tokens import reads_gpt2_tokens, shards_needed
from harness.tokens.manifest import GPT2_TOKENS, read_manifest

SHARD_MB = 200.0
VAL_FILE = "fineweb_val_000000.bin"
OFFICIAL_GPUS = 8


def rehearse(plan: Plan, options: Options, machine: Machine) -> dict:
    """What the replay would be, as data: names and values that JSON takes, in the order in which one asks."""
    where = f"{plan.ranks} rank{'s' * (plan.ranks > 1)} on {machine.gpus[0].name if plan.gpu else machine.cpu}"
    more = f", {plan.nodes.count} nodes" if plan.nodes.count > 1 else ""
    return {
        "record": plan.record.label,
        "script": places.shown(plan.record.script),
        "fidelity": plan.label.name,
        "proves": plan.label.proves,
        "does not prove": plan.label.not_proved or "-",
        "on": where + more,
        "runs": options.runs,
        "steps": plan.steps,
        "settings": {name: str(value) for name, value in plan.overrides.items()},
        "data": data_needed(plan) + names_needed(plan),
        "cost": cost(plan, options),
        "kept in": places.shown(options.runs_dir / plan.record.slug),
    }


def as_lines(facts: dict) -> list[str]:
    """The rehearsal for a terminal, a fact a line."""
    told = dict(facts)
    told["settings"] = ", ".join(f"{name}={value}" for name, value in facts["settings"].items()) or "the record's own"
    told["steps"] = "the script does not tell" if facts["steps"] is None else f"{facts['steps']:,}"
    return [f"{name:<16}{value}" for name, value in told.items()]


def data_needed(plan: Plan) -> str:
    """Which tokens it takes, and what of them would be made or fetched first."""
    place = places.shown(plan.data_dir)
    try:
        manifest = read_manifest(plan.data_dir)
    except UserError as error:
        return str(error)
    if plan.smoke:
        made = "" if manifest else ", made in a few seconds (4 MB, no network)"
        return f"the synthetic source in {place}{made}"
    if manifest and manifest.name != "fineweb10B":
        return f"{manifest.name} in {place}: {manifest.tokens('train'):,} training tokens, all there"
    wanted = [VAL_FILE, *(f"fineweb_train_{number:06d}.bin" for number in range(1, shards_needed(plan) + 1))]
    missing = [name for name in wanted if not manifest or name not in manifest.files]
    there = f"{len(wanted) - 1} train shards of FineWeb and the validation shard in {place}"
    if not missing:
        return f"{there}: all there"
    return f"{there}: {len(missing)} to fetch, {len(missing) * SHARD_MB / 1000:.1f} GB"


def names_needed(plan: Plan) -> str:
    """GPT-2's tokens, where the script looks into them and they are not there."""
    there = not reads_gpt2_tokens(plan) or (plan.data_dir / GPT2_TOKENS).exists()
    return "" if there else f"; {GPT2_TOKENS} to fetch, 1 MB"


def cost(plan: Plan, options: Options) -> str:
    """How long the training would take, as far as the record's published time lets one tell."""
    if plan.smoke:
        return "a minute or less a run, on two CPU cores"
    step_ms = plan.record.listed.step_avg_ms
    if step_ms is None and plan.record.listed.minutes and plan.record.listed.steps:
        step_ms = 60_000 * plan.record.listed.minutes / plan.record.listed.steps
    if not (step_ms and plan.steps):
        return "unknown: nobody published its time a step"
    minutes = plan.steps * step_ms / 60_000 * OFFICIAL_GPUS / plan.world_size
    whole = f" ({options.runs} runs: {options.runs * minutes:.0f})" if options.runs > 1 else ""
    return (
        f"about {minutes:.1f} minutes of training a run{whole}, were each GPU an H100 as published; "
        "compiling and warming up come on top"
    )
