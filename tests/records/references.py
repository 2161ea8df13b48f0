"""What several records' parts are held against."""

import torch


def relative_error(result, reference):
    """‖result - reference‖ / ‖reference‖; NaN never passes a comparison."""
    return ((result.double() - reference.double()).norm() / reference.double().norm()).item()


def distance_from_adam(record, device, beta1):
    """How far a record's `ShardedAdam` and torch.optim.Adam come apart in ten steps, as a share of the way. They differ
    in where epsilon is added, and where a record's moments are in bf16."""
    start = torch.randn(64, 8, device=device)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    adam = record.ShardedAdam([(ours, 0.01)], beta1, 0.95, 1e-10, gradient_scale=0.25)
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(beta1, 0.95), eps=1e-10)
    for _ in range(10):
        gradient = torch.randn_like(start)
        ours.grad, theirs.grad = 4 * gradient, gradient
        adam.step(1.0)
        reference.step()
        assert ours.grad is None
    return relative_error(ours - start, theirs - start)
