"""The ten digits as a person might draw them: strokes of points on a paper of 1 by 1."""

from __future__ import annotations

import math

Point = tuple[float, float]
"""To the right and down."""
Stroke = list[Point]


def arc(
    centre: Point, radii: Point, start: float, end: float, points: int = 16
) -> Stroke:  # degrees, clockwise from the right
    angles = [math.radians(start + (end - start) * i / points) for i in range(points + 1)]
    return [
        (centre[0] + radii[0] * math.cos(a), centre[1] + radii[1] * math.sin(a)) for a in angles
    ]


DIGITS: dict[str, list[Stroke]] = {
    "zero": [arc((0.5, 0.5), (0.22, 0.34), -90, 270)],
    "one": [[(0.38, 0.3), (0.52, 0.16), (0.52, 0.84)]],
    "two": [[*arc((0.5, 0.34), (0.2, 0.18), -170, 30), (0.32, 0.82), (0.72, 0.82)]],
    "three": [
        [
            *arc((0.48, 0.33), (0.19, 0.17), -160, 90),
            *arc((0.48, 0.67), (0.21, 0.17), -90, 160),
        ]
    ],
    "four": [[(0.55, 0.15), (0.28, 0.6), (0.74, 0.6)], [(0.6, 0.38), (0.6, 0.86)]],
    "five": [[(0.7, 0.17), (0.38, 0.17), (0.35, 0.47), *arc((0.5, 0.62), (0.2, 0.2), -130, 140)]],
    "six": [[(0.62, 0.16), *arc((0.5, 0.64), (0.19, 0.2), 180, -180)]],
    # With the bar that most sevens of the data set have.
    "seven": [[(0.3, 0.18), (0.7, 0.18), (0.45, 0.85)], [(0.38, 0.52), (0.72, 0.52)]],
    "eight": [
        arc((0.5, 0.32), (0.16, 0.16), 90, -270),
        arc((0.5, 0.66), (0.19, 0.18), -90, 270),
    ],
    "nine": [[*arc((0.5, 0.35), (0.18, 0.18), 0, -360), (0.66, 0.6), (0.6, 0.86)]],
}
