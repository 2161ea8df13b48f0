"""What the scripts compile on CUDA can be traced: one graph without a break, and none again for a new batch.

A script that breaks the compiler would only be found out on a GPU; the tracer finds it here.
"""

from functools import partial

import pytest
import torch

SMALL = {"num_layers": 12, "model_dim": 32, "num_heads": 2, "mlp_dim": 64}
ROWS = {"row_tokens": 64, "val_row_tokens": 64, "head_dim": 16, "window_block": 16}
SETTINGS = {
    "01": SMALL | {"num_layers": 2, "row_tokens": 16},
    "05": SMALL | {"num_layers": 2, "row_tokens": 16},
    "12": SMALL | {"chunk_tokens": 128, "attention_window": 32},
    "24": SMALL | ROWS,
    "40": SMALL | ROWS,
}


def inputs(number, seed):
    """A batch for `forward`, with documents, as the script's loader would make it."""
    generator = torch.Generator().manual_seed(seed)
    shape = {"01": (2, 16), "05": (2, 16), "12": (128,)}.get(number, (64,))
    tokens = torch.randint(0, 50257, shape, generator=generator)
    tokens[..., :: 7 + seed] = 50256
    if number == "24":
        return tokens.int(), tokens, torch.tensor(1 + seed, dtype=torch.int32)
    if number == "40":
        ends = torch.tensor([0, 20 + seed, 64, 64], dtype=torch.int32)
        return tokens.int(), tokens, ends, 64, (3, 1)
    return tokens, tokens


@pytest.mark.parametrize("number", SETTINGS)
def test_model_is_traced_whole(number, definitions_of, monkeypatch):
    """Forward and backward with `fullgraph=True`; a second batch, with other documents, needs no new graph."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    with monkeypatch.context() as cuda:
        cuda.setattr(torch.cuda, "is_available", lambda: True)  # the scripts compile where there is CUDA
        record = definitions_of(number)
    model = record.GPT(record.Settings(**SETTINGS[number]))
    forward = model if number == "24" else record.fast(model)  # 24 compiles block by block

    with torch._dynamo.config.patch(recompile_limit=64):
        forward(*inputs(number, 0)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch._dynamo.config.patch(recompile_limit=64, error_on_recompile=True):
        forward(*inputs(number, 1)).backward()
