"""What every parameter of a record starts as: the sheets' tables of initial values, as one.

A row holds for a span of records and for the parameters whose whole name matches. Scales are written with the model's
dimensions: at the published size, 1/sqrt(768) = 0.0361 and sqrt(3)/2/sqrt(768) = 1/32.
"""

import math
import re
from dataclasses import dataclass

import torch
from torch import bfloat16, float32


@dataclass(frozen=True)
class Start:
    """Normal with deviation `scale`, uniform within ± `scale`, or one of `values`. The first `share` of its memory is
    drawn so, or of each part of it along dimension 0; the rest is zero."""

    law: str
    dtype: torch.dtype
    scale: object = None  # a function of the settings
    values: tuple = ()
    rounded: bool = False  # drawn in fp32, rounded to bf16, kept in fp32
    share: float = 1.0
    each: bool = False  # a share of each part


def normal(scale, dtype=float32, share=1.0):
    return Start("normal", dtype, scale, share=share)


def uniform(scale, dtype=float32, rounded=False, share=1.0, each=False):
    return Start("uniform", dtype, scale, rounded=rounded, share=share, each=each)


def fixed(dtype, *values):
    return Start("fixed", dtype, values=tuple(torch.tensor(values, dtype=dtype).tolist()))


def one(s):
    return 1.0


def linear(s):
    """PyTorch's default for a linear layer that reads the stream."""
    return 1 / math.sqrt(s.model_dim)


def half(s):
    """Deviation 0.5 / sqrt(inputs)."""
    return math.sqrt(3) * 0.5 / math.sqrt(s.model_dim)


def full(s):
    """Deviation 1 / sqrt(inputs)."""
    return 2 * half(s)


def head(s):
    return 0.005


READING = r"blocks\.\d+\.(attention\.(query|key|value|query_key_value)|mlp\.up)(\.weight)?"  # they read the stream
ADDING = r"blocks\.\d+\.(attention\.output|mlp\.down)(\.weight)?"  # their result is added to it
TABLES = r"(embedding(\.weight)?|value_tables?(\.\d)?)"

TABLE = [
    # from, to, parameters, start
    ("01", "01", r"embedding\.weight", normal(lambda s: 0.02, share=50257 / 50304)),  # the padding is zero
    ("01", "01", r"positions\.weight", normal(lambda s: 0.02)),
    ("01", "01", READING, normal(lambda s: 0.02)),
    ("01", "01", ADDING, normal(lambda s: 0.02 / math.sqrt(2 * s.num_layers))),
    ("01", "01", r".*\.bias", fixed(float32, 0.0)),
    ("01", "01", r".*norm\.weight", fixed(float32, 1.0)),
    # The embedding is also the head until 07, and starts as a linear layer.
    ("02", "07", r"embedding\.weight", uniform(linear)),
    ("08", "09", r"embedding\.weight", normal(one)),
    ("10", "49", TABLES, normal(one, bfloat16)),
    ("08", "31", r"lm_head(\.weight)?", fixed(float32, 0.0)),
    ("32", "50", r"lm_head", fixed(bfloat16, 0.0)),
    ("02", "04", r"blocks\.\d+\.attention\.output\.weight", uniform(linear)),
    ("02", "04", r"blocks\.\d+\.mlp\.down\.weight", uniform(lambda s: 1 / math.sqrt(s.mlp_dim))),
    ("05", "50", ADDING, fixed(float32, 0.0)),
    ("02", "09", READING, uniform(linear)),
    ("10", "17", READING, uniform(linear, rounded=True)),  # the whole model was bf16 for a moment
    ("18", "18", READING, uniform(linear)),
    ("19", "50", READING, uniform(half)),
    ("27", "50", r"blocks\.\d+\.attention\.qkvo", uniform(half, share=3 / 4)),  # the fourth matrix is the output's
    ("28", "31", r"blocks\.\d+\.attention\.gate", fixed(float32, 0.0)),
    ("32", "50", r"(blocks\.\d+\.attention\.|smear_)gate", fixed(bfloat16, 0.0)),
    # Learnt factors: of the stream and the embedding, of both values, of the skips; from 24 on in one vector.
    ("09", "09", r"blocks\.\d+\.stream_mix", fixed(float32, 0.0, 1.0)),
    ("09", "09", r"blocks\.\d+\.attention\.value_mix", fixed(float32, 0.5)),
    ("10", "17", r"blocks\.\d+\.stream_mix", fixed(bfloat16, 0.0, 1.0)),
    ("10", "17", r"blocks\.\d+\.attention\.value_mix", fixed(bfloat16, 0.5)),
    ("11", "17", r"skip_weights", fixed(bfloat16, 1.0)),
    ("18", "23", r"blocks\.\d+\.stream_mix", fixed(float32, 0.0, 1.0)),
    ("18", "23", r"blocks\.\d+\.attention\.value_mix", fixed(float32, 0.5)),
    ("18", "23", r"skip_weights", fixed(float32, 1.0)),
    ("24", "31", r"scalars", fixed(float32, 0.0, 0.5, 1.0)),
    ("32", "49", r"scalars", fixed(float32, -1.5, 0.0, 0.5, 1.0)),  # the skips' go through a sigmoid
    ("50", "50", r"embedding", normal(one, bfloat16)),
    ("50", "61", r"value_tables\.\d", fixed(bfloat16, 0.0)),
    ("50", "61", r"scalars", fixed(float32, -1.5, 0.0, 0.5, 1.0, 1.1)),
    # Banks hold all layers' matrices: query, key, value, output; up, down. The embedding is the head's transpose.
    ("61", "61", r"attention_bank", uniform(full, bfloat16, share=3 / 4, each=True)),
    ("61", "89", r"mlp_bank", uniform(half, bfloat16, share=1 / 2, each=True)),
    ("61", "89", r"lm_head|embedding", normal(head, bfloat16)),
    ("61", "61", r"(attention|skip)_gates?", fixed(bfloat16, 0.0)),
    ("61", "89", r"(value|smear)_gates?", fixed(bfloat16, 0.0)),
    ("61", "61", r"embedding_mix", fixed(float32, 0.0)),
    # 89's banks of attention end with padding: for two heads, 4 of 24 matrices in both. Its blocks generate
    # coefficients, so that their biases are where these start.
    ("89", "89", r"(query_key|value_output)_bank", uniform(half, bfloat16, share=20 / 24)),
    ("89", "89", r"value_tables", normal(lambda s: 0.01, bfloat16)),
    ("89", "89", r"bigram_table|(gate|mixing)_second", fixed(bfloat16, 0.0)),
    ("89", "89", r"(gate|mixing)_first", uniform(linear, bfloat16)),
    ("89", "89", r"gate_bias", fixed(bfloat16, 0.0, 0.5, 2.5, 5.0, 10.0)),
    ("89", "89", r"mixing_bias", fixed(bfloat16, -5.0, 0.0, 0.5, 10.0, 10.48809, 20.0)),
    ("89", "89", r"gate_scale", fixed(float32, 0.1)),
    ("89", "89", r"output_scales", fixed(float32, 1.0)),
    ("89", "89", r"residual_scales", fixed(float32, math.sqrt(1.1))),
    ("89", "89", r"scalars", fixed(float32, -1.5, 0.0, 0.5, 1.0)),
]


def start_of(number: str, name: str) -> Start:
    """The row for a record's parameter. Raises LookupError if there is none, or more than one."""
    rows = [
        start
        for first, last, names, start in TABLE
        if first <= number and (not last or number[:2] <= last) and re.fullmatch(names, name)
    ]
    if len(rows) != 1:
        raise LookupError(f"{len(rows)} rows of the table of initial values match {name} of record {number}")
    return rows[0]
