"""However many ranks share a step, they end with the same weights: each with what the others have, and with what one
rank alone makes of the same rows. So gradients are shared out, averaged, and updates gathered as they should be, and
nothing is read from memory that nobody has written."""

from functools import partial

import numpy as np
import pytest
import smoke

from harness.archive.find import load

STEPS = 4  # Adam steps at least once in each record, Muon on a full gradient twice


@pytest.mark.timeout(300)
def test_four_ranks_train_as_one(folder, corpus, tmp_path):
    """Four rows a step, on one rank and, with memory full of NaN, on four. Curves would hide much, since a step's
    length does not follow the gradient's; the weights do not. All in fp32, so that little is left to rounding; and with
    an epsilon above the first gradients of mixes and value tables, which are rounding and nothing else."""
    record = load(folder)
    settings = {"num_iterations": STEPS, "val_loss_every": 0, "adam_epsilon": 1e-4, **smoke.shortest_step(record, 4)}
    weights = {}
    for ranks in (1, 4):
        place = tmp_path / str(ranks)
        before = partial(smoke.keep_weights, place, poisoned=ranks > 1)
        with smoke.start(record, ranks, corpus[0], place, before, **settings) as job:
            smoke.finish(job)
        weights[ranks] = [np.load(place / f"{rank}-last.npz") for rank in range(ranks)]
    first = np.load(tmp_path / "1" / "0-first.npz")
    moved = 0
    for name, alone in weights[1][0].items():
        together = [ranks[name] for ranks in weights[4]]
        assert all(np.array_equal(together[0], other) for other in together[1:]), f"{name} differs between ranks"
        step, difference = np.linalg.norm(alone - first[name]), np.linalg.norm(together[0] - alone)
        assert difference <= 0.002 * step, f"{name} moved by {step:.3g}, on four ranks to {difference:.3g} from there"
        moved += (step > 0).item()
    assert moved > len(first) / 2, "most weights have not moved: too few steps to tell"
