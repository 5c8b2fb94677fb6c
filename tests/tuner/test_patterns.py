"""Regular expressions in configs: hostile ones are refused in a bounded time, usual ones are matched as PEFT does."""

from __future__ import annotations

import json
import time

import pytest
from peft import LoraConfig, get_peft_model

from actshift import ActshiftError, JointConfig
from actshift.tuner import patterns
from actshift.tuner.loading import load_any_adapter
from actshift.tuner.patterns import check_patterns
from tests.contract.cases import fresh_model

NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.0.post_attention_layernorm", "a" * 40 + "!"]
SLOW = [
    r"(a+)+$",
    r"(a|a)*$",
    r"([a-z._0-9]+)+!x",
    r"(.*)*!x",
    r"(?:.|.)*!x",
    r"(\w+\.?)+!x",
    r"(?=(.+)+!x)x",
    r"(?!(.+)+!x)x!",
    r"(.+)+\Z!",
    r"(.{0,50}){50}!",
    r"(?P<a>.+)+(?P=a)!x",
    ".?" * 28 + "." * 28 + "!x",
    "(?:.|.)" * 30 + "!x",
]
INVALID = ["(", ")", "[", "*", r"\1", "(?P<a>x)(?P<a>y)", "x{100000}{2}", "(" * 5000 + ")" * 5000]
USUAL = [
    r".*\.(q|k|v|down)_proj",
    r"^(?!.*patch_embed).*(?:q_proj|k_proj|down_proj).*",
    r"(?:.*?(?:language|text|model).*?(?:self_attn|attention|mlp).*?(?:k_proj|v_proj|q_proj|down_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj)))",  # unsloth's
    r"model\.layers\.\d+\.mlp\.down_proj",
    r"model(\.\w+)*\.down_proj",
]


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.15)


@pytest.mark.parametrize("pattern", [*SLOW[:3], *(pytest.param(p, marks=pytest.mark.slow) for p in SLOW[3:])])
def test_a_slow_pattern_is_refused(pattern, short_limit) -> None:
    for field, value in (("target_modules", pattern), ("rank_pattern", {pattern: 2})):
        start = time.perf_counter()
        with pytest.raises(ActshiftError, match=f"{field} has a regular expression that takes over"):
            check_patterns({field: value}, names=NAMES)
        assert time.perf_counter() - start < 2


@pytest.mark.parametrize("pattern", INVALID)
def test_an_invalid_pattern_is_refused(pattern) -> None:
    with pytest.raises(ActshiftError, match="exclude_modules is not a valid regular expression") as caught:
        check_patterns({"exclude_modules": pattern})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("pattern", USUAL)
def test_a_usual_pattern_is_accepted(pattern, monkeypatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 20.0)  # also on a busy machine
    check_patterns({"target_modules": pattern}, names=[f"model.layers.{n}.mlp.down_proj" for n in range(5000)])


@pytest.mark.parametrize("kind", ["joint", "lora"])
@pytest.mark.parametrize("field", ["target_modules", "rank_pattern"])
def test_a_file_with_a_slow_pattern_is_refused_and_the_model_is_unchanged(field, kind, short_limit, tmp_path) -> None:
    config = JointConfig(r=2) if kind == "joint" else LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(fresh_model("llama"), config).save_pretrained(str(tmp_path))
    file = tmp_path / "adapter_config.json"
    evil = r"(.|\w)*!"
    values = json.loads(file.read_text()) | {field: {evil: 2} if field.endswith("pattern") else evil}
    file.write_text(json.dumps(values))
    model = fresh_model("llama")
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(ActshiftError, match=f"{field} has a regular expression that takes over"):
        load_any_adapter(model, str(tmp_path))
    assert [name for name, _ in model.named_modules()] == before


def test_plain_names_start_no_process(monkeypatch) -> None:
    monkeypatch.setattr(patterns.subprocess, "run", lambda *args, **kwargs: pytest.fail("started a process"))
    check_patterns({"target_modules": "q_proj", "rank_pattern": {"^model.layers.0.q_proj$": 2}}, names=NAMES)
    check_patterns({"target_modules": ["q_proj", "(a+)+$"]}, names=NAMES)  # PEFT compares the names in a list
