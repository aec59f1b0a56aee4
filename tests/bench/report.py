"""The tables, the JSON and the README blocks of a benchmark run."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from tests.bench.words import COLUMNS, HEADING, NOTES, TITLES

Rounds = dict[str, dict[str, list[dict[str, float]]]]  # scenario -> contender -> rounds

BLOCK = "(<!-- bench:{0} -->\n).*?(<!-- /bench:{0} -->)"
# Other processes may take so much of one core, in the median run, before the numbers are doubtful.
CALM_SHARE = 0.1


def middle(rounds: list[dict[str, float]], key: str) -> tuple[float, float, float]:
    """Median, least, most over the rounds."""
    values = [one[key] for one in rounds]
    return statistics.median(values), min(values), max(values)


def added(rounds: list[dict[str, float]], direct: list[dict[str, float]] | None, key: str) -> str:
    """What the contender adds over no proxy at all, by medians; empty where that is not known."""
    if direct is None or not streamed(rounds):
        return ""
    return f"{middle(rounds, key)[0] - middle(direct, key)[0]:.1f}"


def streamed(rounds: list[dict[str, float]]) -> bool:
    """Tokens were counted, so costs can be told for each."""
    value = rounds[0]["cpu_us_per_token"]
    return value == value


def cost(rounds: list[dict[str, float]]) -> float:
    """Microseconds a token, or a request where nothing was streamed."""
    if streamed(rounds):
        return middle(rounds, "cpu_us_per_token")[0]
    return middle(rounds, "cpu_ms_per_request")[0] * 1e3


def best_router(contenders: dict[str, list[dict[str, float]]]) -> str | None:
    """Of those who are not ours and not Nginx alone, the one that spends the least."""
    routers = [name for name in contenders if name.endswith(("vllm-router", "sglang-router"))]
    return min(routers, key=lambda name: cost(contenders[name])) if routers else None


def _spread(values: tuple[float, float, float], digits: int = 1) -> str:
    return f"{values[0]:.{digits}f} ({values[1]:.{digits}f}–{values[2]:.{digits}f})"


def rows(contenders: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    best = best_router(contenders)
    direct = contenders.get("direct")
    table = []
    for name, rounds in contenders.items():
        if name == "direct":
            continue
        tokens = streamed(rounds)
        ratio = "" if best is None else f"{cost(rounds) / cost(contenders[best]):.2f}×"
        table.append(
            [
                name,
                _spread(middle(rounds, "cpu_us_per_token")) if tokens else "",
                _spread(middle(rounds, "cpu_ms_per_request"), 2),
                ratio,
                added(rounds, direct, "first_p50"),
                added(rounds, direct, "first_p99"),
                added(rounds, direct, "way_p99"),
                f"{middle(rounds, 'requests_per_second')[0]:.0f}",
                f"{middle(rounds, 'resident_mib')[0]:.0f}",
                f"{sum(one['errors'] for one in rounds):.0f}",
            ]
        )
    return table


def markdown(results: Rounds, language: str) -> str:
    """One table a scenario."""
    parts = []
    for scenario, contenders in results.items():
        if set(contenders) <= {"direct"}:
            continue
        parts.append(f"**{TITLES[language][scenario]}**\n")
        parts.append("| " + " | ".join(COLUMNS[language]) + " |")
        parts.append("|" + "---|" * len(COLUMNS[language]))
        parts += ["| " + " | ".join(row) + " |" for row in rows(contenders)]
        parts.append("")
    return "\n".join([*parts, NOTES[language]])


def heading(about: dict[str, Any], language: str, kind: str = "peers") -> str:
    return HEADING[language][kind].format(**about) + "\n\n"


def calmness(results: Rounds) -> str:
    """What is to be said of other processes; empty when they left the run alone."""
    shares = [one["disturbed"] for c in results.values() for rounds in c.values() for one in rounds]
    if not shares or statistics.median(shares) <= CALM_SHARE:
        return ""
    return (
        f"other processes took {statistics.median(shares):.0%} of a core in the median run "
        f"(at most {max(shares):.0%}): the numbers are doubtful"
    )


def write_block(readme: Path, name: str, text: str) -> None:
    """Replace what stands between the block's marks; a missing mark is an error."""
    pattern = re.compile(BLOCK.format(name), re.DOTALL)
    content = readme.read_text()
    if not pattern.search(content):
        raise SystemExit(f"{readme.name} has no block «bench:{name}»: put its two marks back")
    readme.write_text(pattern.sub(lambda m: f"{m[1]}{text.rstrip()}\n{m[2]}", content))


def as_json(results: Rounds, machine: dict[str, Any]) -> dict[str, Any]:
    return {"machine": machine, "results": results}
