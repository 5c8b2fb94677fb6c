"""Registration with PEFT, and the list of patches compared with the patched libraries."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from types import FunctionType

import peft
import pytest
import torch
from peft.utils.peft_types import PeftType
from torch.optim import optimizer

from actshift import ActshiftError, Positions, SteeringConfig, attach
from actshift.tuner import optimizer_hooks
from actshift.tuner.peft_patches import PATCHES, check_peft_version
from tests.contract.cases import fresh_model

IMPORT_ORDERS = {  # each starts a process that imports torch and peft, which takes seconds
    "peft first": "import peft; import actshift",
    "peft is only searched, then a submodule is imported": (
        "import actshift, importlib.util as u; u.find_spec('peft'); from peft.utils import peft_types; import peft"
    ),
}
FINDER_IS_INSTALLED = "any(type(finder).__module__ == 'actshift._post_import' for finder in sys.meta_path)"


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("order", ["peft first", pytest.param([*IMPORT_ORDERS][1], marks=pytest.mark.slow)])
@pytest.mark.slow
def test_method_is_registered_once_both_packages_are_imported(order):
    check = "assert peft.PEFT_TYPE_TO_CONFIG_MAPPING['ACTSHIFT'].__name__ == 'SteeringConfig'"
    run_python(f"{IMPORT_ORDERS[order]}\n{check}\nimport sys; assert not {FINDER_IS_INSTALLED}")


def test_importing_actshift_imports_neither_torch_nor_peft():
    run_python("import actshift, sys; assert not {'torch', 'peft', 'transformers'} & set(sys.modules); dir(actshift)")


@pytest.mark.parametrize("version", ["0.20.3", "0.22.0"])
def test_untested_release_of_peft_is_refused(version, monkeypatch):
    monkeypatch.setattr(peft, "__version__", version)
    with pytest.raises(ActshiftError, match=f"peft {version} is installed"):
        check_peft_version()


def patched_functions() -> set[str]:
    """Return the functions and methods of other libraries that are defined in actshift."""
    patched = set()
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] not in ("peft", "transformers", "torch", "accelerate", "huggingface_hub"):
            continue
        for name, value in list(vars(module).items()):
            members = {name: value}
            if issubclass(type(value), type) and value.__module__ == module_name:
                members = {f"{name}.{key}": member for key, member in vars(value).items()}
            for path, member in members.items():
                function = member.__func__ if type(member) in (classmethod, staticmethod) else member
                if type(function) is FunctionType and str(function.__globals__.get("__name__")).startswith("actshift"):
                    patched.add(f"{module_name}.{path}")
    return patched


def import_finder_is_installed() -> None:
    run_python(f"import sys, actshift\nassert {FINDER_IS_INSTALLED}")


def enum_has_one_more_member() -> None:
    assert [member for member in PeftType.__members__ if f"{member} = " not in inspect.getsource(PeftType)] == [
        "ACTSHIFT"
    ]


def method_is_patched(path: str) -> None:
    assert path in patched_functions()


def optimizer_hooks_are_registered_with_a_steering_layer() -> None:
    attach(fresh_model("llama"), SteeringConfig(rank=2))
    assert optimizer_hooks.before_step in optimizer._global_optimizer_pre_hooks.values()
    assert optimizer_hooks.after_step in optimizer._global_optimizer_post_hooks.values()


def generate_is_patched_only_with_positions() -> None:
    everywhere, prompt = fresh_model("llama"), fresh_model("llama")
    attach(everywhere, SteeringConfig(rank=2))
    attach(prompt, SteeringConfig(rank=2, positions=Positions.prompt()))
    assert "generate" in vars(prompt) and "generate" not in vars(everywhere)


CHECKS = {
    "sys.meta_path": import_finder_is_installed,
    "peft.utils.peft_types.PeftType": enum_has_one_more_member,
    "peft.config.PeftConfig.from_pretrained": lambda: method_is_patched("peft.config.PeftConfig.from_pretrained"),
    "peft.peft_model.PeftModel.load_adapter": lambda: method_is_patched("peft.peft_model.PeftModel.load_adapter"),
    "torch.optim.Optimizer.step": optimizer_hooks_are_registered_with_a_steering_layer,
    "generate of the adapted model instance": generate_is_patched_only_with_positions,
}


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.target)
def test_every_listed_patch_is_applied_by_the_named_function(patch):
    CHECKS[patch.target]()
    module, _, function = patch.applied_by.rpartition(".")
    assert callable(getattr(import_module(module), function))
    assert patch.reason and patch.remove_when


def test_every_patched_function_is_listed():
    attach(fresh_model("llama"), SteeringConfig(rank=2, positions=Positions.prompt())).generate(
        torch.ones(1, 2, dtype=torch.long), max_new_tokens=1
    )
    assert patched_functions() <= {patch.target for patch in PATCHES}
    assert set(CHECKS) == {patch.target for patch in PATCHES}
