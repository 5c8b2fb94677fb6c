"""The import graph of the package has no circles, however an import is written."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"


def modules_below(source: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of every module, by dotted name."""
    return {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_text("utf-8")
        )
        for path in source.rglob("*.py")
    }


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return the modules that each module imports: at the top, inside functions, and for type checkers only."""
    graph = {}
    for name, tree in trees.items():
        imported = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    imported.add(submodule if submodule in trees else node.module)
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
        graph[name] = (imported & trees.keys()) - {name}
    return graph


def test_no_import_circle() -> None:
    try:
        TopologicalSorter(import_graph(modules_below(SOURCE))).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_a_circle_is_found_in_every_kind_of_import(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "__init__.py").write_text("")
    (tmp_path / "p" / "a.py").write_text("def f():\n    from p import b\n    return b\n")
    (tmp_path / "p" / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import f\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(modules_below(tmp_path))).prepare()
