"""The tiny model: what it holds without torch here, and the real making where vLLM's Python is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import tiny_model
from serve_life import VLLM

MAKE = VLLM / "tiny_model.py"


def test_the_corpus_is_the_same_each_time_and_speaks_chinese() -> None:
    text = tiny_model.corpus()
    assert text == tiny_model.corpus()
    assert text != tiny_model.corpus(seed=1)
    assert any("江南" in line for line in text)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / tiny_model.MARK).write_text(json.dumps({"version": tiny_model.VERSION}))
    assert tiny_model.make(tmp_path) is False
    assert tiny_model.main([str(tmp_path)]) == 0


def test_an_older_version_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / tiny_model.MARK).write_text(json.dumps({"version": 0}))
    assert not tiny_model.is_made(tmp_path)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    assert tiny_model.main([str(tmp_path)]) == 2
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_two_makings_give_the_same_bytes(tmp_path: Path) -> None:
    python = os.environ.get("TANDEM_VLLM_PYTHON")
    if not python:
        pytest.fail("TANDEM_VLLM_PYTHON names no Python with vLLM; scripts/test.sh sets it")
    sums = []
    for name in ("one", "two"):
        command = [python, str(MAKE), str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        files = ("model.safetensors", "tokenizer.json", "chat_template.jinja")
        made = b"".join((tmp_path / name / file).read_bytes() for file in files)
        sums.append(hashlib.sha256(made).hexdigest())
        assert (tmp_path / name / "model.safetensors").stat().st_mode & 0o044 == 0o044
    assert sums[0] == sums[1]
