from __future__ import annotations

import json

import pytest

from actshift.errors import ActshiftError, require


def test_returns_the_module_when_it_is_installed():
    assert require("json", extra="train") is json


def test_returns_a_submodule_not_its_package():
    assert require("importlib.metadata", extra="train").__name__ == "importlib.metadata"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_says_how_to_install_what_is_missing(module):
    with pytest.raises(ActshiftError) as error:
        require(module, extra="train")
    assert str(error.value) == (
        "This needs the package 'no_such_package', which is not installed: pip install 'actshift[train]'."
    )


def test_a_broken_installation_is_not_reported_as_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import its_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_missing_dependency"):
        require("broken_package", extra="train")
