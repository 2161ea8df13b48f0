"""Labels that never collide."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from reports.labels import Box, place

BOUNDS = Box(0, 0, 400, 300)
points = st.tuples(st.floats(0, 400), st.floats(0, 300))
sizes = st.tuples(st.floats(5, 120), st.floats(5, 25))


def test_boxes_overlap_only_where_they_share_area():
    box = Box(0, 0, 10, 10)
    assert box.overlaps(Box(9, 9, 20, 20))
    assert not box.overlaps(Box(10, 0, 20, 10))


def test_a_segment_crosses_a_box_also_without_an_end_inside():
    box = Box(10, 10, 20, 20)
    assert box.crossed_by((0, 15), (30, 15))
    assert box.crossed_by((0, 0), (30, 30))
    assert not box.crossed_by((0, 0), (30, 5))
    assert not box.crossed_by((5, 0), (5, 30))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(points, sizes), min_size=1, max_size=12))
def test_no_two_labels_and_no_leader_ever_collide(wanted):
    anchors, extents = zip(*wanted, strict=True)
    taken = [Box(x, y, x, y).grown(2) for x, y in anchors]
    placed = [one for one in place(list(anchors), list(extents), taken, BOUNDS, unit=6, reach=200) if one]
    for one in placed:
        assert one.box.inside(BOUNDS)
        assert not any(one.box.overlaps(other) for other in taken)
    for one, other in itertools.combinations(placed, 2):
        assert not one.box.overlaps(other.box)
        assert not one.box.crossed_by(other.start, other.end)
        assert not other.box.crossed_by(one.start, one.end)


def test_the_first_label_takes_the_best_place_and_one_without_room_is_left_out():
    small = Box(0, 0, 60, 20)
    first, second = place([(5, 10), (5, 10)], [(40, 12), (40, 12)], [], small, unit=4, reach=60)
    assert first is not None
    assert second is None
