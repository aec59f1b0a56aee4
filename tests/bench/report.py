"""The table, the JSON and the README block of a benchmark run."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

Rounds = dict[str, dict[str, list[dict[str, float]]]]  # scenario -> contender -> rounds

BLOCK = re.compile(r"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)".replace("{name}", "%s"))


def middle(rounds: list[dict[str, float]], key: str) -> tuple[float, float, float]:
    """Median, least, most over the rounds."""
    values = [one[key] for one in rounds]
    return statistics.median(values), min(values), max(values)


def added(rounds: list[dict[str, float]], direct: list[dict[str, float]], key: str) -> float:
    """What the contender adds over no proxy at all, by medians."""
    return middle(rounds, key)[0] - middle(direct, key)[0]


def _spread(values: tuple[float, float, float], digits: int = 1) -> str:
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f}–{values[2]:.{digits}f})"


def rows(contenders: dict[str, list[dict[str, float]]], best: str | None) -> list[list[str]]:
    direct = contenders["direct"]
    table = []
    for name, rounds in contenders.items():
        if name == "direct":
            continue
        streamed = rounds[0]["cpu_us_per_token"] == rounds[0]["cpu_us_per_token"]
        unit = "cpu_us_per_token" if streamed else "cpu_ms_per_request"
        cpu = middle(rounds, unit)
        ratio = "" if best is None else f"{cpu[0] / middle(contenders[best], unit)[0]:.2f}×"
        table.append(
            [
                name,
                _spread(middle(rounds, "cpu_us_per_token")) if streamed else "",
                _spread(middle(rounds, "cpu_ms_per_request"), 2),
                ratio,
                f"{added(rounds, direct, 'first_p50'):.1f}" if streamed else "",
                f"{added(rounds, direct, 'first_p99'):.1f}" if streamed else "",
                f"{added(rounds, direct, 'way_p99'):.1f}" if streamed else "",
                f"{middle(rounds, 'requests_per_second')[0]:.0f}",
                f"{middle(rounds, 'resident_mib')[0]:.0f}",
                f"{sum(one['errors'] for one in rounds):.0f}",
            ]
        )
    return table


HEAD = [
    "proxy",
    "CPU µs/token",
    "CPU ms/request",
    "ratio to best router",
    "added TTFT p50 ms",
    "added TTFT p99 ms",
    "added token p99 ms",
    "requests/s",
    "MiB",
    "errors",
]


def best_router(contenders: dict[str, list[dict[str, float]]]) -> str | None:
    """The Rust router that spends the least CPU in this scenario."""
    routers = [name for name in ("vllm-router", "sglang-router") if name in contenders]

    def cost(name: str) -> float:
        value = middle(contenders[name], "cpu_us_per_token")[0]
        return value if value == value else middle(contenders[name], "cpu_ms_per_request")[0]

    return min(routers, key=cost) if routers else None


def markdown(results: Rounds, titles: dict[str, str]) -> str:
    """One table a scenario."""
    parts = []
    for scenario, contenders in results.items():
        parts.append(f"**{titles[scenario]}**\n")
        parts.append("| " + " | ".join(HEAD) + " |")
        parts.append("|" + "---|" * len(HEAD))
        for row in rows(contenders, best_router(contenders)):
            parts.append("| " + " | ".join(row) + " |")
        parts.append("")
    return "\n".join(parts)


def write_block(readme: Path, name: str, text: str) -> None:
    """Replace what stands between the block's marks; a missing mark is an error."""
    pattern = re.compile(BLOCK.pattern % (name, name), re.DOTALL)
    content = readme.read_text()
    if not pattern.search(content):
        raise SystemExit(f"{readme.name} has no block «bench:{name}»: put its two marks back")
    readme.write_text(pattern.sub(lambda m: f"{m[1]}{text.rstrip()}\n{m[2]}", content))


def as_json(results: Rounds, machine: dict[str, Any]) -> dict[str, Any]:
    return {"machine": machine, "results": results}
