"""The fp8 head of any record that has one, asked for the next tokens' cross entropy alone."""

import inspect

import torch


def softcap(record) -> tuple[float, float, float]:
    """Of a logit z the records make cap * sigmoid((z + shift) / width)."""
    shift = getattr(record.settings, "logit_shift", 0.0)
    return record.settings.logit_cap, shift, record.settings.logit_width


def asked(record, targets) -> tuple[tuple, tuple]:
    """What the record's loss takes for targets, and for the softcap. Later losses may ask for more than the next token:
    here for nothing more."""
    cap, shift, width = softcap(record)
    if hasattr(record, "wanted_classes"):
        weights = torch.tensor([1.0, 0.0], device=targets.device)
        return record.wanted_classes(targets, torch.full_like(targets, -1), weights), (cap, shift, width)
    if "target_weights" in inspect.signature(record.capped_cross_entropy).parameters:
        return (targets, torch.ones(1, device=targets.device)), (cap, shift, width)
    return (targets,), (cap, width)


def head_loss(record, x, weight, targets):
    """x (T, dim), weight (vocabulary, dim), which later records store transposed, targets (T,)."""
    wanted, cap = asked(record, targets)
    return record.FP8HeadLoss.apply(x, weight.T.contiguous() if len(cap) == 3 else weight, *wanted, *cap)


def log_sums(record, z, targets):
    """Of the softmax of raw logits z (T, vocabulary)."""
    wanted, cap = asked(record, targets)
    return record.capped_cross_entropy(z, *wanted[:2], *cap)[1]


def logit_gradient(record, z, targets, sums):
    """The loss's gradient by z, at 8 bits and in both directions."""
    wanted, cap = asked(record, targets)
    return record.capped_cross_entropy_gradient(z, *wanted, sums, *cap)
