"""However many ranks share a step, they end with the same weights: each with what the others have, and with what one
rank alone makes of the same rows. So gradients are shared out, averaged, and updates gathered as they should be, and
nothing is read from memory that nobody has written."""

from functools import partial

import pytest
import smoke
import torch

from harness.archive.find import load

STEPS = 4  # Adam steps at least once in each record, Muon on a full gradient twice


@pytest.mark.timeout(300)
def test_four_ranks_train_as_one(folder, corpus, tmp_path):
    """Four rows a step, on one rank and, with memory full of NaN, on four. Curves would hide much, since a step's
    length does not follow the gradient's; the weights do not."""
    record = load(folder)
    settings = {"num_iterations": STEPS, "val_loss_every": 0, **smoke.shortest_step(record, 4)}
    weights = {}
    for ranks in (1, 4):
        place = tmp_path / str(ranks)
        before = partial(smoke.keep_weights, place, poisoned=ranks > 1)
        with smoke.start(record, ranks, corpus[0], place, before, **settings) as job:
            smoke.finish(job)
        weights[ranks] = [torch.load(place / f"{rank}-last.pt") for rank in range(ranks)]
    first = torch.load(tmp_path / "1" / "0-first.pt")
    moved = 0
    for name, alone in weights[1][0].items():
        together = [ranks[name] for ranks in weights[4]]
        assert all(torch.equal(together[0], other) for other in together[1:]), f"{name} differs between ranks"
        step, difference = (alone - first[name]).norm(), (together[0] - alone).norm()
        # A value table's first gradients are next to nothing, and Adam makes whole steps of their rounding.
        limit = 0.35 if name.startswith("value_table") else 0.1
        assert difference <= limit * step, f"{name} moved by {step:.3g}, on four ranks to {difference:.3g} from there"
        moved += (step > 0).item()
    assert moved > len(first) / 2, "most weights have not moved: too few steps to tell"
