"""The cost of a token over the number of streams, as an SVG."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from tests.bench.report import Rounds, middle

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 320, 60, 40, 30
COLOURS = {"tandem": "#2563eb", "two gateways": "#ea580c"}
Points = list[tuple[int, float]]


def scale(results: Rounds) -> str:
    """Empty when the run had none of these scenarios."""
    lines = {name: _points(results, name) for name in COLOURS}
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return ""
    most = max(cost for points in lines.values() for _, cost in points) * 1.2
    parts = [_frame(most)]
    for number, (name, points) in enumerate(lines.items()):
        parts.append(_line(points, most, COLOURS[name]))
        parts.append(_text(LEFT + 20 + 160 * number, TOP - 10, name, COLOURS[name]))
    return _svg(parts)


def _points(results: Rounds, name: str) -> Points:
    found = []
    for scenario, contenders in results.items():
        streams = 1000 if scenario == "crowd" else int(scenario.partition("scale-")[2] or 0)
        if streams and name in contenders:
            found.append((streams, middle(contenders[name], "cpu_us_per_token")[0]))
    return sorted(found)


def _x(streams: float) -> float:
    return LEFT + (WIDTH - LEFT - 20) * (math.log10(streams) - 1) / 2


def _y(cost: float, most: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * cost / most


def _line(points: Points, most: float, colour: str) -> str:
    path = " ".join(f"{_x(n):.1f},{_y(cost, most):.1f}" for n, cost in points)
    dots = "".join(
        f'<circle cx="{_x(n):.1f}" cy="{_y(cost, most):.1f}" r="3" fill="{colour}"/>'
        for n, cost in points
    )
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'


def _text(x: float, y: float, words: str, colour: str = "#444", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="12" '
        f'font-family="sans-serif" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _frame(most: float) -> str:
    right, floor = WIDTH - 20, HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" stroke="#888"/>']
    for n in (10, 30, 100, 300, 1000):
        parts.append(_text(_x(n), floor + 16, str(n), anchor="middle"))
    for share in (0.25, 0.5, 0.75, 1.0):
        y = _y(most * share, most)
        parts.append(f'<path d="M{LEFT} {y:.0f}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{most * share:.0f}", anchor="end"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 6, "streams at 20 tokens/s", anchor="middle"))
    parts.append(_text(LEFT, TOP - 10, "µs", anchor="end"))
    return "".join(parts)


def _svg(parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
        f"<title>CPU per streamed token</title>"
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' + "".join(parts) + "</svg>\n"
    )
