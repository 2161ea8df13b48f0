"""A curve in a terminal, drawn with braille dots: two columns and four rows of them in every character."""

import math
from itertools import pairwise

BLANK = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bit of the dot in (row, column) of a character


def plot(points: list[tuple[float, float]], width: int = 64, height: int = 12, line: float | None = None) -> list[str]:
    """Lines of text with the curve through `points` (x rising), axes and their ends labelled.

    `width` and `height` count the characters of the canvas itself. `line` is a level drawn as dots, in range or not.
    Points that are not finite are left out; fewer than two leave nothing to draw.
    """
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(points) < 2:
        return []
    levels = [y for _, y in points] + ([line] if line is not None else [])
    low, high = min(levels), max(levels)
    first, last = points[0][0], points[-1][0]
    canvas = [[0] * width for _ in range(height)]

    def set_dot(column: int, y: float) -> None:
        row = round((high - y) / ((high - low) or 1) * (4 * height - 1))
        canvas[row // 4][column // 2] |= DOTS[row % 4][column % 2]

    heights = [_between(points, first + (last - first) * column / (2 * width - 1)) for column in range(2 * width)]
    for column, y in enumerate(heights):
        set_dot(column, y)
        steep = round(abs(y - heights[column - 1]) / ((high - low) or 1) * 4 * height) if column else 0
        for part in range(1, steep):  # a steep stretch stays one line
            set_dot(column, y + (heights[column - 1] - y) * part / steep)
    if line is not None:
        for column in range(0, 2 * width, 4):
            set_dot(column, line)
    return _framed(canvas, (low, high), (first, last))


def _between(points: list[tuple[float, float]], x: float) -> float:
    """The curve's value at `x`, by linear interpolation."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / ((x1 - x0) or 1)
    return points[-1][1]


def _framed(canvas: list[list[int]], values: tuple[float, float], span: tuple[float, float]) -> list[str]:
    """The canvas with the ends of both axes written beside and below it."""
    texts = ["".join(chr(BLANK + bits) for bits in row) for row in canvas]
    labels = [f"{values[1]:.2f}", *[""] * (len(texts) - 2), f"{values[0]:.2f}"] if len(texts) > 1 else [""]
    left, right = f"{span[0]:,.0f}", f"{span[1]:,.0f}"
    frame = [f"{label:>6} │{text}" for label, text in zip(labels, texts)]
    foot = f"{'':6} └{'─' * len(texts[0])}"
    return [*frame, foot, f"{'':8}{left}{right:>{len(texts[0]) - len(left)}}"]
