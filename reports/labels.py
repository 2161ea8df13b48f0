"""Labels that never collide: where to write each name, given what is already on the page.

Pure geometry in pixels; the charts measure their texts and hand the sizes over. Greedy by importance: the first label
takes the best free place, the next one the best that is left, and one that finds none is left out.
"""

import math
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """An upright rectangle in pixels, y upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: "Box") -> bool:
        """Whether the two share area (touching edges do not count)."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def inside(self, other: "Box") -> bool:
        """Whether this box lies wholly in `other`."""
        return other.x0 <= self.x0 and other.y0 <= self.y0 and self.x1 <= other.x1 and self.y1 <= other.y1

    def grown(self, margin: float) -> "Box":
        """The box with `margin` pixels more on every side."""
        return Box(self.x0 - margin, self.y0 - margin, self.x1 + margin, self.y1 + margin)

    def nearest(self, point: Point) -> Point:
        """The point of the box that is nearest to `point`."""
        return min(max(point[0], self.x0), self.x1), min(max(point[1], self.y0), self.y1)

    def crossed_by(self, start: Point, end: Point) -> bool:
        """Whether the segment from `start` to `end` touches the box (Liang and Barsky's clipping)."""
        low, high = 0.0, 1.0
        for origin, delta, least, most in (
            (start[0], end[0] - start[0], self.x0, self.x1),
            (start[1], end[1] - start[1], self.y0, self.y1),
        ):
            if delta == 0:
                if not least <= origin <= most:
                    return False
                continue
            first, last = sorted(((least - origin) / delta, (most - origin) / delta))
            low, high = max(low, first), min(high, last)
        return low <= high


@dataclass(frozen=True)
class Placement:
    """A label's box, and the leader line from its point to the box."""

    box: Box
    start: Point
    end: Point


# Directions in degrees, the best first, each with how far a leader may go that way: a steep one leads the eye,
# a long flat one looks like a grid line.
DIRECTIONS = (
    *((0, 0.08), (45, 0.6), (60, 1), (30, 0.25), (75, 1), (90, 1), (180, 0.12), (195, 0.2), (210, 0.4)),
    *(
        (330, 0.12),
        (315, 0.3),
        (300, 0.5),
        (285, 0.5),
        (270, 0.5),
        (255, 0.5),
        (240, 0.5),
        (225, 0.4),
        (105, 0.5),
        (120, 0.4),
    ),
)


BELOW = ((270, 1), (285, 1), (255, 1), (300, 1), (240, 1), (315, 1), (225, 1), (0, 0.3))


def _candidates(anchor: Point, width: float, height: float, unit: float, reach: float, directions):
    """Boxes around `anchor`, nearest first; at each distance in the order of `directions`."""
    rings = int(reach / unit)
    for ring in range(1, rings + 1):
        for angle, share in directions:
            if ring > max(rings * share, 2):
                continue
            dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = anchor[0] + dx * ring * unit, anchor[1] + dy * ring * unit
            left = x - width * (1 - dx) / 2
            bottom = y - height * (1 - dy) / 2
            yield Box(left, bottom, left + width, bottom + height)


def place(
    anchors: list[Point],
    sizes: list[Point],
    taken: list[Box],
    bounds: Box,
    *,
    unit: float,
    reach: float,
    directions=DIRECTIONS,
) -> list[Placement | None]:
    """Find a place for each label, in the order given; None where there is no free one within `reach` pixels.

    `anchors` are the points to be named, `sizes` the widths and heights of their texts, `taken` what must not be
    covered. No label comes within `unit / 2` of another, of anything taken, or of a leader line, and none leaves
    `bounds`. A leader may pass over what is taken (lines and dots), but over no label.
    """
    placed: list[Placement | None] = []
    for anchor, (width, height) in zip(anchors, sizes, strict=True):
        done = [other for other in placed if other]
        found = None
        for box in _candidates(anchor, width, height, unit, reach, directions):
            end = box.nearest(anchor)
            if box.inside(bounds) and _is_free(box.grown(unit / 2), anchor, end, taken, done, unit):
                found = Placement(box, anchor, end)
                break
        placed.append(found)
    return placed


def _is_free(box: Box, start: Point, end: Point, taken: list[Box], done: list[Placement], unit: float) -> bool:
    """Whether a label in `box` with its leader is clear of everything that is already there."""
    if any(box.overlaps(other) for other in taken):
        return False
    for other in done:
        if box.overlaps(other.box) or box.crossed_by(other.start, other.end):
            return False
        if other.box.grown(unit / 3).crossed_by(start, end) or _cross(start, end, other.start, other.end):
            return False
    return True


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the segments a-b and c-d cross."""

    def side(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
