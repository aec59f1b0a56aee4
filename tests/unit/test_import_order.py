"""Imports within the gateway go one way, and nothing reads settings but the composition root."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

GATEWAY = Path(__file__).parents[2] / "gateway"
# Each group stands above those before it. Modules not named here are companions of these.
ORDER = (
    "settings errors schemas sse",
    "logs metrics",
    "auth limits usage sessions admission engines",
    "health_watch engine_client",
    "relay",
    "chat_turn",
    "routes middleware",
    "app",
    "__main__",
)
READS_SETTINGS = {"app", "__main__", "admin", "rollout_check"}


def _modules() -> dict[str, ast.Module]:
    files = (f for f in sorted(GATEWAY.rglob("*.py")) if f.name != "__init__.py")
    return {
        ".".join(f.relative_to(GATEWAY).with_suffix("").parts): ast.parse(f.read_text())
        for f in files
    }


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _imported(tree: ast.AST) -> set[str]:
    """Modules of the gateway that are loaded when this one is."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if _type_checking(node):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gateway"):
            module = (node.module or "").partition(".")[2]
            below = {f"{module}.{a.name}".lstrip(".") for a in node.names}
            found |= below | {module}
        elif isinstance(node, ast.Import):
            found |= {a.name[8:] for a in node.names if a.name.startswith("gateway.")}
        else:
            found |= _imported(node)
    return found


def _graph() -> dict[str, set[str]]:
    modules = _modules()
    return {name: (_imported(tree) & set(modules)) - {name} for name, tree in modules.items()}


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for name in graph[left.pop()] - seen:
            seen.add(name)
            left.append(name)
    return seen


def test_there_is_no_circle() -> None:
    try:
        tuple(TopologicalSorter(_graph()).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other in a circle: {error.args[1]}")


def test_no_module_reaches_one_above_it() -> None:
    graph = _graph()
    place = {name: number for number, group in enumerate(ORDER) for name in group.split()}
    wrong = []
    for name in graph:
        for other in _reached(graph, name):
            low, high = place.get(name.partition(".")[0]), place.get(other.partition(".")[0])
            if low is not None and high is not None and high > low:
                wrong.append(f"{name} reaches {other}")
    assert not wrong


def test_only_the_root_reads_settings() -> None:
    readers = {name for name, imported in _graph().items() if "settings" in imported}
    assert readers <= READS_SETTINGS


def test_the_test_sees_the_modules() -> None:
    graph = _graph()
    assert {"errors", "routes.completions", "engines"} <= set(graph)
    assert "errors" in graph["routes.completions"]
