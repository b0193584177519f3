"""Points, lines and zones in a picture: x to the right, y down, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

Point = tuple[float, float]


def side(a: Point, b: Point, point: Point) -> float:
    """Positive right of the line as one looks from ``a`` to ``b``, negative left, 0 on it."""
    return (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])


def crosses(a: Point, b: Point, start: Point, end: Point) -> int:
    """Where the way from ``start`` to ``end`` crosses the segment ``ab``: 1 to its right, -1 to its left, or 0.

    A way that only touches the line does not cross it; the ends ``a`` and ``b`` belong to the segment.
    """
    before, after = side(a, b, start), side(a, b, end)
    if before == 0 or after == 0 or (before > 0) == (after > 0):
        return 0
    of_a, of_b = side(start, end, a), side(start, end, b)
    if (of_a > 0 and of_b > 0) or (of_a < 0 and of_b < 0):
        return 0
    return 1 if after > 0 else -1


def inside(polygon: Sequence[Point], point: Point) -> bool:
    """Whether a polygon holds a point; of polygons that share an edge exactly one holds a point of it."""
    x, y = point
    within = False
    x1, y1 = polygon[-1]
    for x2, y2 in polygon:
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            within = not within
        x1, y1 = x2, y2
    return within


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Two segments have a point in common."""
    of_c, of_d, of_a, of_b = side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)
    if of_c == of_d == 0:  # on one line
        return all(max(min(a[i], b[i]), min(c[i], d[i])) <= min(max(a[i], b[i]), max(c[i], d[i])) for i in (0, 1))
    return min(of_c, of_d) <= 0 <= max(of_c, of_d) and min(of_a, of_b) <= 0 <= max(of_a, of_b)


def crosses_itself(polygon: Sequence[Point]) -> bool:
    """Two edges that are not neighbors meet, or neighbors run back over each other."""
    count = len(polygon)
    edges = [(polygon[i], polygon[(i + 1) % count]) for i in range(count)]
    for (i, (a, b)), (j, (c, d)) in combinations(enumerate(edges), 2):
        if j == i + 1 or (i == 0 and j == count - 1):
            p, corner, q = (a, b, d) if j == i + 1 else (c, d, b)
            ahead = (corner[0] - p[0]) * (q[0] - corner[0]) + (corner[1] - p[1]) * (q[1] - corner[1])
            if side(p, corner, q) == 0 and ahead < 0:
                return True
        elif _meet(a, b, c, d):
            return True
    return False


def area(polygon: Sequence[Point]) -> float:
    """Square pixels of a polygon that does not cross itself."""
    corners = zip(polygon, [*polygon[1:], polygon[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in corners)) / 2
