"""The benchmark's own arithmetic: medians, ratios, tables, the drawing, the READMEs' blocks."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import affinity, plot, report
from tests.bench.measure import percentile, scenarios
from tests.bench.words import COLUMNS, TITLES

NAN = float("nan")


def rounds(*costs: float, disturbed: float = 0.0) -> list[dict[str, float]]:
    base = {
        "cpu_ms_per_request": 1.0,
        "first_p50": 50.0,
        "first_p99": 60.0,
        "way_p99": 1.0,
        "requests_per_second": 20.0,
        "resident_mib": 60.0,
        "errors": 0.0,
        "disturbed": disturbed,
    }
    return [{**base, "cpu_us_per_token": cost} for cost in costs]


RESULTS = {
    "streams": {
        "direct": rounds(0, 0, 0),
        "tandem": rounds(30, 20, 25),
        "vllm-router": rounds(21, 20, 19),
        "sglang-router": rounds(40, 41, 39),
    }
}


def test_a_row_has_the_median_its_spread_and_the_ratio_to_the_best_router() -> None:
    row = report.rows(RESULTS["streams"])[0]
    assert row[:2] == ["tandem", "25.0 (20.0–30.0)"]
    assert row[3] == "1.25×"
    assert row[4] == "0.0", "what no proxy needs is not the proxy's"


def test_requests_are_compared_where_nothing_was_streamed() -> None:
    plain = {"direct": rounds(NAN), "tandem": rounds(NAN), "vllm-router": rounds(NAN)}
    assert report.rows(plain)[0][1:4] == ["", "1.00 (1.00–1.00)", "1.00×"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_scenario_has_a_title_and_every_cell_a_column(language: str) -> None:
    assert {s.name for s in scenarios(quick=False)} == set(TITLES[language])
    table = report.markdown(RESULTS, language)
    for line in table.splitlines():
        if line.startswith("|"):
            assert line.count("|") == len(COLUMNS[language]) + 1


def test_a_disturbed_run_says_so() -> None:
    assert report.calmness(RESULTS) == ""
    busy = {"streams": {"tandem": rounds(20, 20, disturbed=0.8)}}
    assert "80%" in report.calmness(busy)


def test_the_drawing_has_a_line_for_each_and_is_xml() -> None:
    results = {
        f"scale-{n}": {"tandem": rounds(20 + n), "two gateways": rounds(22)} for n in (10, 100)
    }
    drawing = ElementTree.fromstring(plot.scale(results))
    lines = [one for one in drawing.iter() if one.tag.endswith("polyline")]
    assert len(lines) == 2
    assert plot.scale(RESULTS) == ""


def test_a_block_is_replaced_whole_and_a_missing_one_is_told(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- bench:peers -->\nold\nold\n<!-- /bench:peers -->\nb\n")
    report.write_block(readme, "peers", "new \\1\n")
    assert readme.read_text() == "a\n<!-- bench:peers -->\nnew \\1\n<!-- /bench:peers -->\nb\n"
    with pytest.raises(SystemExit, match="bench:other"):
        report.write_block(readme, "other", "x")


def test_percentiles() -> None:
    assert percentile([float(n) for n in range(100)], 0.99) == 99.0
    assert percentile([5.0], 0.5) == 5.0
    assert percentile([], 0.5) != percentile([], 0.5)


def test_the_engines_counters_are_read() -> None:
    text = (
        'vllm:prefix_cache_hits_total{engine="0",model_name="m"} 16.0\n'
        'vllm:request_success_total{engine="0",finished_reason="stop"} 1.0\n'
        'vllm:request_success_total{engine="0",finished_reason="length"} 2.0\n'
    )
    found = affinity.COUNTERS.findall(text)
    assert [value for _, value in found] == ["16.0", "1.0", "2.0"]
