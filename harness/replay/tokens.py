"""The tokens of a plan: on disk before training starts, and enough of them."""

import math

from harness.errors import UserError
from harness.replay.fidelity import FINEWEB
from harness.replay.plan import Plan
from harness.tokens.manifest import Manifest

SHARD_TOKENS = 100_000_000  # in a train shard of FineWeb


def shards_needed(plan: Plan) -> int:
    """Train shards of FineWeb for the steps asked: the record's own figure, in proportion to its steps."""
    record, listed = plan.record, plan.record.listed
    if not (plan.steps and listed.steps):
        return record.shards
    by_record = record.shards * plan.steps / listed.steps
    by_tokens = plan.steps * (listed.tokens_per_step or 0) / SHARD_TOKENS
    return max(1, math.ceil(max(by_record, by_tokens)))


def prepare(plan: Plan, repeat: bool) -> tuple[Manifest | None, str]:
    """See that the plan's tokens are on disk, fetched or made where they may be. Returns their manifest and a note.

    Raises UserError when they cannot be had, or are too few for the steps asked (`repeat` allows several passes).
    """
    from harness.tokens import prepare as data  # numpy and the Hub's client take their time

    if plan.smoke:
        return data.ensure_synthetic(plan.data_dir), ""
    manifest = data.read_manifest(plan.data_dir)
    ours = manifest.name == FINEWEB if manifest else not any(plan.data_dir.glob("fineweb_train_*.bin"))
    if ours:
        manifest = data.ensure_fineweb(plan.data_dir, shards_needed(plan))
    if reads_gpt2_tokens(plan):
        _fetch_gpt2_tokens(plan)
    return manifest, check_tokens(plan, manifest, repeat)


def _fetch_gpt2_tokens(plan: Plan) -> None:
    from harness.tokens.gpt2 import ensure_gpt2_tokens

    try:
        ensure_gpt2_tokens(plan.data_dir)
    except UserError as error:
        raise UserError(f"{error}; `--set {plan.record.gpt2_tokens}=false` does without GPT-2's tokens") from None


def reads_gpt2_tokens(plan: Plan) -> bool:
    """Whether the script, so set, looks into GPT-2's tokens."""
    setting = plan.record.gpt2_tokens
    return bool(setting) and str(plan.overrides.get(setting, True)).lower() == "true"


def check_tokens(plan: Plan, manifest: Manifest | None, repeat: bool) -> str:
    """Hold the steps asked against the tokens at hand: a note, "" if one pass over them suffices, or UserError."""
    tokens_per_step = plan.record.listed.tokens_per_step
    if plan.smoke or manifest is None or not (plan.steps and tokens_per_step):
        return ""
    needed, present = plan.steps * tokens_per_step, manifest.tokens("train")
    if needed <= present:
        return ""
    passes = f"{plan.data_dir} holds {present:,} training tokens; {plan.steps:,} steps of {tokens_per_step:,} take "
    passes += f"{needed:,}, {needed / max(present, 1):.1f} passes"
    if repeat:
        return passes
    if manifest.name == FINEWEB:
        raise UserError(
            f"{passes}: fetch {shards_needed(plan)} shards with `harness data --shards {shards_needed(plan)}`"
        )
    raise UserError(f"{passes}: add shards, ask for fewer steps (--scale), or allow several passes (--repeat)")
