""".env.example says everything that can be set, once, with its real default."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.settings import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
EXAMPLE_TEXT = (ROOT / ".env.example").read_text()
EXAMPLE = dict(LINE.findall(EXAMPLE_TEXT))
COMPOSE_TEXT = (ROOT / "compose.yaml").read_text() + (ROOT / "vllm/compose.cpu.yaml").read_text()
USED = re.findall(r"\$\{([A-Z][A-Z0-9_]*)(?::[-?]([^}]*))?\}", COMPOSE_TEXT)
SET_UP = {"TANDEM_SETUP"}


def test_no_variable_is_named_twice() -> None:
    names = [name for name, _ in LINE.findall(EXAMPLE_TEXT)]
    assert len(names) == len(set(names))


def test_it_names_the_gateway_settings_and_what_compose_reads_and_no_more() -> None:
    assert set(EXAMPLE) == set(DEFAULTS) | {name for name, _ in USED}


def test_its_values_are_the_defaults_of_the_gateway() -> None:
    assert {name: EXAMPLE[name] for name in DEFAULTS} == dict(DEFAULTS)


def test_its_values_are_the_defaults_of_compose() -> None:
    for name, default in USED:
        if name not in SET_UP:
            assert EXAMPLE[name] == default, name


def test_what_compose_fixes_for_the_gateways_is_what_the_example_says() -> None:
    block = COMPOSE_TEXT.partition("x-gateway-settings:")[2].partition("\nx-gateway:")[0]
    fixed = dict(re.findall(r"^  ([A-Z_]+): \"?([^$\"\n]+)\"?$", block, re.MULTILINE))
    assert {name: EXAMPLE[name] for name in fixed} == fixed
    passed = set(re.findall(r"^  ([A-Z_]+):", block, re.MULTILINE))
    assert passed | {"GATEWAY_NAME"} == set(DEFAULTS)


def test_each_variable_has_a_word_of_explanation_above_it() -> None:
    for group in re.split(r"\n\n", EXAMPLE_TEXT):
        assert group.startswith("#"), group


def test_it_holds_no_secret() -> None:
    assert not [name for name in EXAMPLE if re.search(r"PASSWORD|API_KEY|TOKEN$|SECRET$", name)]
