"""Hints in error messages, and the import of optional packages."""

from __future__ import annotations

import json

import pytest

from actshift.errors import ActshiftError, check_choice, check_fields, find_surrogate, first_repeated, require


def test_an_unknown_choice_is_an_error_with_the_nearest_and_all_allowed_values():
    message = r"Unknown init 'defualt' \(did you mean 'default'\?\)\. Use one of default, reference, or None\."
    with pytest.raises(ActshiftError, match=message):
        check_choice("init", "defualt", ("default", "reference"), ", or None")


def test_an_unknown_field_is_an_error_with_the_nearest_and_all_allowed_fields():
    message = r"Unknown field 'rnak' of adapter 'x' \(did you mean 'rank'\?\)\. Its fields are: rank\. If a newer"
    with pytest.raises(ActshiftError, match=message):
        check_fields("adapter 'x'", {"rnak": 1}, ["rank"])


def test_require_returns_an_installed_module():
    assert require("json", extra="train") is json


def test_require_returns_a_submodule_instead_of_its_package():
    assert require("importlib.metadata", extra="train").__name__ == "importlib.metadata"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_require_names_the_command_that_installs_a_missing_package(module):
    with pytest.raises(ActshiftError) as error:
        require(module, extra="train")
    assert str(error.value) == (
        "This needs the package 'no_such_package', which is not installed: pip install 'actshift[train]'."
    )


def test_require_does_not_report_a_broken_installation_as_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import its_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_missing_dependency"):
        require("broken_package", extra="train")


def test_the_first_repeated_value_is_found_in_linear_time() -> None:
    values = [str(number) for number in range(200_000)]
    assert first_repeated(values) is None
    assert first_repeated([*values, "199999"]) == "199999"


@pytest.mark.parametrize(("text", "index"), [("", None), ("é🦊", None), ("a\ud83d", 1), ("\udc80b\ud800", 0)])
def test_a_lone_surrogate_is_found(text: str, index: int | None) -> None:
    assert find_surrogate(text) == index
