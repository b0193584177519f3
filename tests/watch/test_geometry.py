"""Crossing and being inside, on whole numbers, where nothing is rounded."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from squeezedet.watch.config import area, crosses, crosses_itself, inside, side

points = st.tuples(st.integers(-50, 50), st.integers(-50, 50))
SQUARE = ((0, 0), (10, 0), (10, 10), (0, 10))


def test_right_and_left_as_one_looks_along_the_line() -> None:
    up = ((5, 10), (5, 0))  # y goes down: from the lower end one looks up
    assert side(*up, (9, 5)) > 0
    assert crosses(*up, (0, 5), (9, 5)) == 1
    assert crosses(*up, (9, 5), (0, 5)) == -1
    assert crosses(*up, (0, 20), (9, 20)) == 0  # beside its end
    assert crosses(*up, (0, 5), (5, 5)) == 0  # up to it
    assert crosses(*up, (0, 10), (9, 10)) == 1  # over its very end


@given(points, points, points, points)
def test_back_is_the_other_direction(a: tuple, b: tuple, start: tuple, end: tuple) -> None:
    way = crosses(a, b, start, end)
    assert crosses(a, b, end, start) == -way
    assert crosses(b, a, start, end) == -way


@given(points, points, points, points, st.integers(1, 9))
def test_a_straight_way_in_two_steps_crosses_as_often_as_in_one(
    a: tuple, b: tuple, start: tuple, end: tuple, tenths: int
) -> None:
    middle = tuple(s + Fraction(tenths, 10) * (e - s) for s, e in zip(start, end, strict=True))
    assume(side(a, b, middle) != 0)
    assert crosses(a, b, start, middle) + crosses(a, b, middle, end) == crosses(a, b, start, end)


@given(points, points, st.lists(points, min_size=2, max_size=8))
def test_a_closed_way_around_a_far_end_crosses_both_ways(a: tuple, b: tuple, way: list) -> None:
    """Over an endless line, a way that ends where it began has crossed as often to one side as to the other."""
    assume(a != b)
    far_a = tuple(x + 1000 * (x - y) for x, y in zip(a, b, strict=True))
    far_b = tuple(y + 1000 * (y - x) for x, y in zip(a, b, strict=True))
    assume(all(side(a, b, point) for point in way))
    steps = zip(way, [*way[1:], way[0]], strict=True)
    assert sum(crosses(far_a, far_b, start, end) for start, end in steps) == 0


@given(points, points, points, points)
def test_inside_a_box_is_what_comparing_says(corner: tuple, other: tuple, point: tuple, shift: tuple) -> None:
    (x1, y1), (x2, y2) = corner, other
    assume(x1 != x2 and y1 != y2)
    box = ((x1, y1), (x2, y1), (x2, y2), (x1, y2))
    left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    assert inside(box, point) == (left <= point[0] < right and top <= point[1] < bottom)
    assert inside(box[::-1], point) == inside(box, point)
    moved = tuple((x + shift[0], y + shift[1]) for x, y in box)
    assert inside(moved, (point[0] + shift[0], point[1] + shift[1])) == inside(box, point)


@given(points, points, points, points)
def test_who_gets_in_has_crossed_an_edge(a: tuple, b: tuple, c: tuple, point: tuple) -> None:
    assume(area((a, b, c)) > 0)
    outside = (1000, point[1])
    edges = ((a, b), (b, c), (c, a))
    assume(all(side(*edge, point) and side(point, outside, edge[0]) for edge in edges))
    crossings = sum(abs(crosses(*edge, point, outside)) for edge in edges)
    assert inside((a, b, c), point) == (crossings % 2 == 1)


@given(st.lists(points, min_size=3, max_size=3, unique=True))
def test_a_triangle_crosses_itself_only_if_it_is_flat(corners: list) -> None:
    assert crosses_itself(corners) == (area(corners) == 0)


@pytest.mark.parametrize(
    ("polygon", "wrong"),
    [
        (SQUARE, False),
        (((0, 0), (10, 10), (10, 0), (0, 10)), True),
        (((0, 0), (10, 0), (10, 10), (5, 0), (0, 10)), True),  # touches itself
        (((0, 0), (10, 0), (20, 0), (20, 10), (0, 10)), False),  # a corner on a straight edge
        (((0, 0), (10, 0), (5, 0), (5, 10)), True),  # an edge that runs back
    ],
)
def test_polygons(polygon: tuple, wrong: bool) -> None:
    assert crosses_itself(polygon) is wrong


def test_area() -> None:
    assert area(SQUARE) == area(SQUARE[::-1]) == 100
