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
    drawn so, the rest is zero."""

    law: str
    dtype: torch.dtype
    scale: object = None  # a function of the settings
    values: tuple = ()
    rounded: bool = False  # drawn in fp32, rounded to bf16, kept in fp32
    share: float = 1.0


def normal(scale, dtype=float32, share=1.0):
    return Start("normal", dtype, scale, share=share)


def uniform(scale, rounded=False, share=1.0):
    return Start("uniform", float32, scale, rounded=rounded, share=share)


def fixed(dtype, *values):
    return Start("fixed", dtype, values=values)


def one(s):
    return 1.0


def linear(s):
    """PyTorch's default for a linear layer that reads the stream."""
    return 1 / math.sqrt(s.model_dim)


def half(s):
    """Deviation 0.5 / sqrt(inputs)."""
    return math.sqrt(3) * 0.5 / math.sqrt(s.model_dim)


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
    ("10", "", TABLES, normal(one, bfloat16)),
    ("08", "31", r"lm_head(\.weight)?", fixed(float32, 0.0)),
    ("32", "", r"lm_head", fixed(bfloat16, 0.0)),
    ("02", "04", r"blocks\.\d+\.attention\.output\.weight", uniform(linear)),
    ("02", "04", r"blocks\.\d+\.mlp\.down\.weight", uniform(lambda s: 1 / math.sqrt(s.mlp_dim))),
    ("05", "", ADDING, fixed(float32, 0.0)),
    ("02", "09", READING, uniform(linear)),
    ("10", "17", READING, uniform(linear, rounded=True)),  # the whole model was bf16 for a moment
    ("18", "18", READING, uniform(linear)),
    ("19", "", READING, uniform(half)),
    ("27", "", r"blocks\.\d+\.attention\.qkvo", uniform(half, share=3 / 4)),  # the fourth matrix is the output's
    ("28", "31", r"blocks\.\d+\.attention\.gate", fixed(float32, 0.0)),
    ("32", "", r"(blocks\.\d+\.attention\.|smear_)gate", fixed(bfloat16, 0.0)),
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
    ("32", "", r"scalars", fixed(float32, -1.5, 0.0, 0.5, 1.0)),  # the skips' go through a sigmoid
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
