"""Import a module right after another package, and only then."""

from __future__ import annotations

import sys
from importlib.resources import files
from importlib.util import find_spec

import pytest

from actshift._post_import import after_import


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a package `waited_for` and a module `waiting` on the path, and forget both after the test."""
    (tmp_path / "waited_for").mkdir()
    (tmp_path / "waited_for" / "__init__.py").write_text("")
    (tmp_path / "waiting.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in ("waited_for", "waiting"):
        sys.modules.pop(name, None)


def test_module_is_imported_after_the_package(package):
    finders = list(sys.meta_path)
    after_import("waited_for", "waiting")
    assert find_spec("waited_for") is not None and "waiting" not in sys.modules  # searching is not importing
    import waited_for  # pyright: ignore[reportMissingImports]

    assert "waiting" in sys.modules and sys.meta_path == finders
    assert files(waited_for).joinpath("__init__.py").is_file()  # the package has its own loader


def test_module_is_imported_at_once_if_the_package_already_is(package):
    import waited_for  # noqa: F401  # pyright: ignore[reportMissingImports]

    after_import("waited_for", "waiting")
    assert "waiting" in sys.modules
