"""Loading models and tokenizers, and errors for folders that are incomplete or damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from actshift import ActshiftError, SteeringConfig, attach
from actshift.evaluation import generate_completions
from actshift.loading import context_length, load_model
from actshift.training import TrainSettings, fit
from tests.tiny import save_adapter, save_model, word_tokenizer
from tests.zoo import ARCHITECTURES, MORE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def test_a_folder_is_loaded_with_its_tokenizer(folder: Path, capfd: pytest.CaptureFixture) -> None:
    model, tokenizer = load_model(folder)
    expected = ARCHITECTURES["llama"]().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert (model.training, tokenizer("w0 w1")["input_ids"]) == (False, [3, 4])
    assert capfd.readouterr().err == ""


def test_half_precision_files_are_loaded_in_float32_on_a_cpu(tmp_path: Path) -> None:
    ARCHITECTURES["llama"]().half().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    assert load_model(tmp_path)[0].dtype == torch.float32


def _edit_config(old: str, new: str) -> Callable[[Path], object]:
    return lambda at: (at / "config.json").write_text((at / "config.json").read_text().replace(old, new))


def _pickle(at: Path) -> None:
    torch.save(load_file(at / "model.safetensors"), at / "pytorch_model.bin")
    (at / "model.safetensors").unlink()


def _drop_a_tensor(at: Path) -> None:
    tensors = load_file(at / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, at / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda at: (at / "model.safetensors").write_bytes(b"123"), "are damaged"),
        (_pickle, "has no model.safetensors, and pickled weights are not read"),
        (_drop_a_tensor, r"lack model.layers.1.mlp.up_proj.weight \(1 missing in all\)"),
        (lambda at: [file.unlink() for file in at.glob("tokenizer*")], "has no tokenizer"),
        (lambda at: (at / "tokenizer.json").write_text("{"), "cannot be loaded"),
        (lambda at: (at / "config.json").unlink(), "has no config.json"),
        (_edit_config('"llama"', '"lama"'), "has an architecture that this version of transformers does not know"),
        (_edit_config('"hidden_size": 32', '"hidden_size": 64'), "have other shapes than its config.json specifies"),
        (_edit_config("{", ""), "is not a valid JSON file"),
    ],
)
def test_a_damaged_folder_is_an_error_of_one_line(folder: Path, tmp_path: Path, damage, message: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    damage(copy)
    with pytest.raises(ActshiftError, match=message) as error:
        load_model(copy)
    assert "\n" not in str(error.value)


def test_sources_that_are_not_models_are_rejected(folder: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", folder, rank=1)
    for source, message in {
        str(tmp_path / "nowhere"): "There is no folder",
        str(folder / "config.json"): "is a file",
        str(adapter): "is an adapter, not a model",
        "nobody/nothing": "neither a folder here nor a cached model, and the hub is unreachable",
        "two words": "neither a folder here nor a possible Hugging Face id",
    }.items():
        with pytest.raises(ActshiftError, match=message):
            load_model(source)
    with pytest.raises(ActshiftError, match=r"Unknown dtype 'float8' .*Use one of auto, float32"):
        load_model(folder, dtype="float8")  # type: ignore[arg-type]


def test_a_model_that_generates_no_text_is_rejected(tmp_path: Path) -> None:
    ARCHITECTURES["vit"]().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ActshiftError, match="is not a causal language model"):
        load_model(tmp_path)


HUGE = word_tokenizer()  # without a limit of its own


@pytest.mark.parametrize(
    ("name", "context"),
    [
        *[
            (name, 65)
            for name in ("roberta", "xlm-roberta", "camembert", "data2vec-text", "roberta-prelayernorm", "esm")
        ],
        *[(name, 66) for name in ("bert", "ernie", "electra", "deberta-v2", "biogpt")],
        *[(name, 64) for name in ("gpt2", "gptj", "gpt_neo", "opt", "mpt", "llama")],
        *[(name, int(HUGE.model_max_length)) for name in ("t5", "bloom")],
    ],
)
def test_the_context_is_the_longest_input_of_a_model(name: str, context: int) -> None:
    model = (ARCHITECTURES | MORE)[name]()
    assert context_length(model.config, HUGE) == context
    if context < 1000:
        model(input_ids=torch.full((1, context), 5))
    if context in (65, 66) or name in ("gpt2", "opt", "mpt"):
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, context + 1), 5))


def test_limits_of_config_and_tokenizer_that_mean_none_are_ignored() -> None:
    config = ARCHITECTURES["llama"]().config
    for limit, context in ((-1, HUGE.model_max_length), (0, HUGE.model_max_length), (8, 8)):
        config.max_position_embeddings = limit
        assert context_length(config, HUGE) == context
    assert context_length(config, word_tokenizer(model_max_length=5)) == 5


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has one token more than its embedding has rows."""
    folder = save_model(tmp_path_factory.mktemp("larger"))
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<x1>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_token_without_an_embedding_is_refused_with_its_name(larger: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(larger, device="cpu")
    message = r"needs the token '<x1>' \(id 96\), and the model has embeddings for only 96 tokens"
    assert len(generate_completions(model, tokenizer, ["w1", "w2 w3"], 2)) == 2
    with pytest.raises(ActshiftError, match=f"Prompt 2 {message}"):
        generate_completions(model, tokenizer, ["w1", "w2 <x1>"], 2)
    with pytest.raises(ActshiftError, match=f"A text {message}"):  # any other use, as in locate
        model(**tokenizer(["w2 <x1>"], return_tensors="pt"))
    rows = Dataset.from_list([{"prompt": "w1", "completion": "w2"}, {"prompt": "<x1>", "completion": "w2"}])
    with pytest.raises(ActshiftError, match=f"Row 2 {message}"):
        fit(attach(model, SteeringConfig(rank=1)), tokenizer, rows, TrainSettings(max_steps=1))
    model.resize_token_embeddings(97)
    assert generate_completions(model, tokenizer, ["w2 <x1>"], 2)


def test_a_padding_token_without_an_embedding_is_refused_before_training() -> None:
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    rows = Dataset.from_list([{"prompt": "w1", "completion": "w2"}])
    assert len(generate_completions(ARCHITECTURES["llama"](), tokenizer, ["w1", "w2 w3"], 2)) == 2
    with pytest.raises(ActshiftError, match=r"Padding needs the token '\[PAD\]' \(id 96\)"):
        fit(attach(ARCHITECTURES["llama"](), SteeringConfig(rank=1)), tokenizer, rows, TrainSettings(max_steps=1))
