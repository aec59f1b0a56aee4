"""For all tests: none may hang for ever, and none is led astray by the caller's own settings."""

from __future__ import annotations

import contextlib
import os

import pytest

TEST_SECONDS = 300
# What a shell may have set and a test must not meet: proxies, and Tandem's own settings in .env.
STRAY = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


def pytest_configure(config: pytest.Config) -> None:
    for name in STRAY:
        os.environ.pop(name, None)
    os.environ["NO_PROXY"] = "localhost,127.0.0.1"
    with contextlib.suppress(ImportError):
        from hypothesis import settings

        # A busy machine is no verdict.
        settings.register_profile("untimed", deadline=None)
        settings.load_profile("untimed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A deadline for each test; one that needs more says so with the same mark."""
    if not config.pluginmanager.hasplugin("timeout"):
        return
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
