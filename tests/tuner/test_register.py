"""Registration: by the import of peft, whoever imports it and when; in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

ORDERS = {  # each starts a process that imports torch and peft, some seconds apiece
    "peft first": "import peft; import actshift",
    "only asked for, then a submodule": (
        "import actshift, importlib.util as u; u.find_spec('peft'); from peft.utils import peft_types; import peft"
    ),
}


@pytest.mark.parametrize("order", ["peft first", pytest.param([*ORDERS][1], marks=pytest.mark.slow)])
def test_the_method_is_known_once_both_are_imported(order):
    code = f"{ORDERS[order]}\nassert peft.PEFT_TYPE_TO_CONFIG_MAPPING['ACTSHIFT'].__name__ == 'SteeringConfig'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_actshift_costs_neither_torch_nor_peft():
    code = "import actshift, sys; assert not {'torch', 'peft', 'transformers'} & set(sys.modules); dir(actshift)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_peft_that_is_not_tested_is_refused(monkeypatch):
    import peft

    from actshift import ActshiftError
    from actshift.tuner.peft_patches import check_peft_version

    for version in ("0.20.3", "0.22.0"):
        monkeypatch.setattr(peft, "__version__", version)
        with pytest.raises(ActshiftError, match=f"peft {version} is installed"):
            check_peft_version()
