"""What records 61 and 89 share over ranks, and what a few steps on four of them do not show."""

import pytest
import torch


@pytest.fixture(params=["61", "89"])
def record(definitions_of, request):
    return definitions_of(request.param)


@pytest.fixture(params=[1, 2, 4, 8])
def as_every_rank(request, monkeypatch):
    """So many ranks, and a function that calls another as each of them in turn."""

    def call(function):
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: request.param)
        for rank in range(request.param):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            yield function()

    return call


def test_a_bank_s_matrices_keep_their_rates_whoever_owns_them(record, as_every_rank):
    """Up and down in turn, also where a rank's share begins with a down matrix, as at 8 ranks."""
    bank = torch.nn.Parameter(torch.randn(12, 2, 8, 4).bfloat16())
    trained = list(as_every_rank(lambda: record.NorMuon(bank, (2.0, 4.0), 0.1, 0.0, 0.9, 1.0)))
    assert torch.equal(torch.cat([rank.own for rank in trained]), bank.flatten(0, 1))
    assert torch.cat([rank.factors for rank in trained]).flatten().tolist() == [2.0, 4.0] * 12


def test_untying_gives_each_rank_its_rows_of_the_moments(record, as_every_rank, monkeypatch):
    """The head's moments, gathered and transposed, and its number of steps."""
    head = torch.nn.Parameter(torch.zeros(512, 1024).bfloat16())
    embedding, wholes = torch.nn.Parameter(torch.zeros(1024, 512).bfloat16()), torch.randn(2, 512, 1024)

    def untied():
        rules = {
            name: record.Adam(p, 0.1, 0.0, (0.5, 0.9), 1e-8, 1.0)
            for name, p in (("lm_head", head), ("embedding", embedding))
        }
        rules["lm_head"].steps, arriving = 7, iter(wholes)
        monkeypatch.setattr(torch.distributed, "all_gather_into_tensor", lambda out, own: out.copy_(next(arriving)))
        record.Optimizer(rules, ()).untie()
        return rules["embedding"]

    ranks = list(as_every_rank(untied))
    assert {rank.steps for rank in ranks} == {7}
    for name, whole in zip(("first", "second"), wholes):
        assert torch.equal(torch.cat([getattr(rank, name) for rank in ranks]), whole.T)
