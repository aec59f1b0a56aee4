"""What a fault cost the callers, as one row, and the table of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts.chaos.faults import Fault
from scripts.chaos.load import Answer
from scripts.chaos.words import HEAD, RUN, WHAT_ZH

READMES = {"en": "README.md", "zh": "README.zh-CN.md"}
MARKS = ("<!-- chaos -->", "<!-- /chaos -->")


@dataclass(frozen=True)
class Row:
    fault: str
    what: str
    streams: int
    moved: int
    failed: int
    truncated: int
    doubled: int
    misspelt: int
    longest_gap: float
    healed: float | None
    complaints: tuple[str, ...] = ()
    outage: bool = False
    # Why it was not done at all; empty when it was.
    not_done: str = ""

    @property
    def lost(self) -> int:
        """While nobody is left to answer, one who is told so has lost nothing silently."""
        told = 0 if self.outage else self.failed
        return told + self.truncated + self.doubled + self.misspelt

    @property
    def verdict(self) -> str:
        if self.not_done:
            return "not done"
        return "ok" if self.lost == 0 and self.healed is not None else "LOST"

    def cells(self, language: str = "en") -> list[str]:
        what = self.what if language == "en" else WHAT_ZH[self.fault]
        if self.not_done:
            return [self.fault, what, *["–"] * 7, f"not done: {self.not_done}"]
        healed = "no" if self.healed is None else f"{self.healed:.0f}"
        counts = (
            self.streams,
            self.moved,
            self.failed,
            self.truncated,
            self.doubled,
            self.misspelt,
        )
        return [
            self.fault, what, *(str(n) for n in counts), f"{self.longest_gap:.1f}", healed,
        ]  # fmt: skip


def not_done(fault: Fault, reason: str) -> Row:
    """This machine cannot do it; nothing is known."""
    return Row(fault.name, fault.what, *[0] * 6, 0.0, None, not_done=reason)


def row(
    fault: Fault, answers: list[Answer], misspelt: int, healed: float | None, trouble: str = ""
) -> Row:
    """Count what the callers of these answers saw. `trouble`: what the tool itself ran into."""
    told = dict.fromkeys(one.error for one in answers if one.error)
    said = [trouble] if trouble else []
    return Row(
        fault.name,
        fault.what,
        len(answers),
        sum(one.failovers > 0 for one in answers),
        sum(one.failed for one in answers),
        sum(one.truncated or one.miscounted for one in answers if not one.failed),
        sum(one.surplus > 0 for one in answers),
        misspelt,
        max((one.longest_gap for one in answers), default=0.0),
        healed,
        tuple([*said, *map(str, told)][:5]),
        fault.outage,
    )


def table(rows: list[Row], language: str = "en") -> str:
    head = HEAD[language]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(one.cells(language)) + " |" for one in rows]
    return "\n".join(lines)


def write_readmes(root: Path, rows: list[Row], date: str, streams: int) -> None:
    """Replace what stands between the marks in both READMEs; a missing mark is an error."""
    for language, name in READMES.items():
        text = RUN[language].format(date=date, streams=streams) + "\n\n" + table(rows, language)
        readme = root / name
        content = readme.read_text()
        if not all(mark in content for mark in MARKS):
            raise SystemExit(f"{name} has no «chaos» block: put its two marks back")
        before, after = content.split(MARKS[0], 1)[0], content.split(MARKS[1], 1)[1]
        readme.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")
