"""`actshift generate` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import PROMPTS, Run
from tests.tiny import save_model

FEW = ("--max-new-tokens", 5)


def test_one_prompt_is_completed_as_plain_text(actshift: Run, model: Path, adapter: Path) -> None:
    base = actshift("generate", "--model", model, "--prompt", "w1 w2", *FEW)
    steered = actshift("generate", "--adapter", adapter, "--prompt", "w1 w2", *FEW)
    assert base.code == steered.code == 0
    assert len(base.out.split()) == len(steered.out.split()) == 5
    assert base.out != steered.out


def test_base_and_adapters_side_by_side(
    actshift: Run, model: Path, adapter: Path, vector: Path, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    both = ("generate", "--adapter", adapter, "--adapter", vector, "--prompts", prompts, "--compare", *FEW)
    rows = json.loads(actshift(*both, "--json").out)
    assert [row["prompt"] for row in rows] == PROMPTS
    for row in rows:
        for options, written in (
            (("--model", model), row["base"]),
            (("--adapter", adapter), row["adapters"][str(adapter)]),
            (("--adapter", vector), row["adapters"][str(vector)]),
        ):
            assert actshift("generate", *options, "--prompt", row["prompt"], *FEW).out == written + "\n"
    table = actshift(*both).out
    assert all(head in table for head in ("prompt", "base", "low-rank", "vector"))
    assert rows[0]["base"].split()[0] in table


def test_strength_scales_from_the_base_to_the_adapter(actshift: Run, adapter: Path) -> None:
    def row(strength: float) -> tuple[str, str]:
        options = ("--strength", strength, "--compare", "--json", *FEW)
        [row] = json.loads(actshift("generate", "--adapter", adapter, "--prompt", "w1 w2", *options).out)
        return row["base"], row["adapters"][str(adapter)]

    base, steered = row(0)
    assert base == steered
    assert row(1)[0] == base != row(1)[1]


def test_a_long_prompt_is_refused_or_truncated(actshift: Run, refused, model: Path) -> None:
    long = ("generate", "--model", model, "--prompt", "w1 " * 80, *FEW)
    assert "59 tokens" in refused(*long)
    code, out, err = actshift(*long, "--long-prompts", "truncate")
    assert (code, len(out.split())) == (0, 5)
    assert "1 of 1 prompts exceed 59 tokens" in err


def test_missing_invalid_or_conflicting_prompts_are_refused(refused, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "w1"}\n{"text": "w1"}\n')
    empty = tmp_path / "empty.txt"
    empty.touch()
    assert "either --prompt with a text or --prompts" in refused("generate", "--model", "x")
    assert "either --prompt with a text or --prompts" in refused("generate", "--prompt", "a", "--prompts", file)
    assert "Row 2 of" in refused("generate", "--prompts", file)
    assert "holds no prompts" in refused("generate", "--prompts", empty)
    assert "There is no file" in refused("generate", "--prompts", tmp_path / "missing.txt")
    assert "No model is given" in refused("generate", "--prompt", "w1")


def test_an_adapter_for_another_model_is_refused(refused, adapter: Path, tmp_path: Path) -> None:
    deeper = save_model(tmp_path / "deeper", num_hidden_layers=4)
    line = refused("generate", "--model", deeper, "--adapter", adapter, "--prompt", "w1")
    assert "for a model with 3 blocks of width 32" in line


def test_a_damaged_adapter_and_a_duplicate_are_refused(refused, model: Path, adapter: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(adapter, tmp_path / "broken"))
    file = broken / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert "is damaged" in refused("generate", "--model", model, "--adapter", broken, "--prompt", "w1")
    assert "given twice" in refused("generate", "--adapter", adapter, "--adapter", adapter, "--prompt", "w1")


@pytest.mark.parametrize("base", [None, "/gone/away"])
def test_a_missing_base_is_refused_with_a_hint_at_model(refused, adapter: Path, tmp_path: Path, base) -> None:
    moved = Path(shutil.copytree(adapter, tmp_path / "moved"))
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    assert "--model" in refused("generate", "--adapter", moved, "--prompt", "w1")


def test_an_adapter_as_the_model_is_refused(refused, adapter: Path) -> None:
    assert "is an adapter, not a model" in refused("generate", "--model", adapter, "--prompt", "w1")
