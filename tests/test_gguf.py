"""Loading GGUF files: the weights, the tokenizer, and errors for files that are no usable model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from actshift import ActshiftError
from actshift.fingerprint import changed, fingerprint_model
from actshift.loading import load_config, load_model, load_tokenizer
from actshift.model_head import Head
from tests.gguf_files import CHAT, save_gguf
from tests.tiny import save_model
from tests.zoo import ARCHITECTURES


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def load(source: object, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model(str(source), device="cpu", **settings)


def test_weights_and_tokenizer_are_those_of_the_file(file: Path, capfd: pytest.CaptureFixture) -> None:
    with pytest.warns(UserWarning, match=r"tiny.gguf is a GGUF file, and its weights are dequantised .* float32\)"):
        model, tokenizer = load_model(file, device="cpu")
    with warnings.catch_warnings(action="error"):  # only once
        load_model(file, device="cpu")
    expected = ARCHITECTURES["llama"]().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert tokenizer.convert_ids_to_tokens(tokenizer("w12 w3<eos>")["input_ids"]) == ["w", "1", "2", "Ġw", "3", "<eos>"]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<eos>", "<pad>")
    assert (tokenizer.chat_template, model.generation_config.eos_token_id) == (CHAT, 2)
    assert model.name_or_path == model.config.name_or_path == tokenizer.name_or_path == str(file)
    assert capfd.readouterr() == ("", "")  # no progress bar


def test_quantised_weights_are_dequantised_and_saved_as_an_ordinary_folder(tmp_path: Path) -> None:
    model, tokenizer = load(save_gguf(tmp_path / "tiny.gguf", quantised=True))
    name, kind = "model.layers.1.mlp.up_proj.weight", gguf.GGMLQuantizationType.Q8_0
    original = ARCHITECTURES["llama"]().state_dict()[name]
    blocks = gguf.quants.quantize(original.numpy(), kind)
    assert not torch.equal(original, model.state_dict()[name])
    assert torch.equal(torch.from_numpy(gguf.quants.dequantize(blocks, kind)), model.state_dict()[name])
    model.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    assert "quantization_config" not in (tmp_path / "folder" / "config.json").read_text()
    again, same_tokenizer = load(tmp_path / "folder")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert same_tokenizer("w1 w2").input_ids == tokenizer("w1 w2").input_ids


def test_a_folder_with_one_file_is_that_model_and_other_files_are_ignored(file: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(file.read_bytes())
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    model, tokenizer = load(tmp_path)
    assert (model.generation_config.eos_token_id, len(tokenizer), model.name_or_path) == (2, 96, str(tmp_path))
    assert fingerprint_model(tmp_path) == fingerprint_model(file)
    save_gguf(tmp_path / "tiny.gguf", quantised=True)
    assert changed(fingerprint_model(file), fingerprint_model(tmp_path)) == ["weights"]
    save_model(tmp_path)  # now it is an ordinary folder
    assert load(tmp_path)[1].chat_template is None


def test_the_metadata_are_parsed_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[object] = []
    original = gguf.GGUFReader.__init__
    monkeypatch.setattr(gguf.GGUFReader, "__init__", lambda *args: (parsed.append(args), original(*args))[1])
    copy = Path(file.with_name("copy.gguf"))
    copy.write_bytes(file.read_bytes())
    load_config(str(copy)).num_labels = 7
    load_tokenizer(str(copy))
    assert (load_config(str(copy)).num_labels, len(parsed)) == (2, 1)


@pytest.mark.parametrize("head", [Head("SEQ_CLS", ("a", "b", "c")), Head("FEATURE_EXTRACTION")], ids=str)
def test_other_heads_are_put_on_the_blocks(file: Path, head: Head) -> None:
    model = load(file, head=head)[0]
    blocks = load(file)[0].model
    body = getattr(model, "model", model)
    assert all(torch.equal(a, b) for a, b in zip(body.parameters(), blocks.parameters(), strict=True))
    assert model.config.num_labels == (len(head.labels) or 2)


def _keep(size: float) -> Callable[[Path], object]:
    return lambda at: at.write_bytes((data := at.read_bytes())[: int(size * len(data))])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_keep(0.9), r"tiny.gguf cannot be read \(.*\). If it is incomplete, download it again"),
        (_keep(0.05), r"tiny.gguf cannot be read"),
        (_keep(0.001), r"tiny.gguf cannot be read"),
        (_keep(0), "is not a GGUF file"),
        (lambda at: at.write_text("version https://git-lfs.github.com/spec/v1"), "is not a GGUF file"),
        (lambda at: save_gguf(at, arch="clip"), "transformers cannot convert the architecture of .*tiny.gguf"),
        (lambda at: save_gguf(at.with_name("b.gguf")), "has several GGUF files: b.gguf, tiny.gguf"),
        (lambda at: at.rename(at.with_name("a-00001-of-00002.gguf")), "a-00001-of-00002.gguf is one of 2 parts"),
        (lambda at: at.rename(at.with_name("tiny.bin")), "has no config.json"),
    ],
)
def test_unusable_files_are_an_error_of_one_line(file: Path, tmp_path: Path, damage, message: str) -> None:
    (tmp_path / "tiny.gguf").write_bytes(file.read_bytes())
    damage(tmp_path / "tiny.gguf")
    with pytest.raises(ActshiftError, match=message) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_files_that_do_not_exist_and_revisions_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    for source, revision, message in (
        (str(file), "v1", "is a file, and only models on the hub have revisions"),
        ("acme/model/tiny.gguf", None, "no file acme/model/tiny.gguf. Files on the hub must be downloaded first"),
        (str(tmp_path / "model.bin"), None, r"is a file. Give a model's folder, or a file whose name ends in .gguf"),
    ):
        with pytest.raises(ActshiftError, match=message):
            load_model(source, revision=revision)


def test_a_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ActshiftError, match=r"'gguf', which is not installed: pip install 'actshift\[gguf\]'"):
        load_config(str(file))


def test_missing_weights_are_named(file: Path, tmp_path: Path) -> None:
    model = ARCHITECTURES["llama"](num_hidden_layers=1)
    model.config.num_hidden_layers = 2
    with pytest.raises(ActshiftError, match=r"lack model.layers.1.*\(9 missing in all\)"):
        load(save_gguf(tmp_path / "short.gguf", model))


def test_a_hub_repository_with_only_gguf_files_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args, **kwargs):
        raise OSError("acme/tiny-GGUF does not appear to have a file named config.json. Checkout 'https://…'")

    monkeypatch.setattr("actshift.loading.AutoConfig.from_pretrained", missing)
    with pytest.raises(ActshiftError, match=r"acme/tiny-GGUF has no config.json. If it has GGUF files, download one"):
        load_config("acme/tiny-GGUF")


@pytest.mark.slow
def test_a_real_file_equals_the_converted_folder(real_gguf: Path, smollm2: Path) -> None:
    (model, tokenizer), (expected, same) = load(real_gguf), load(smollm2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    assert tokenizer.get_vocab() == same.get_vocab() and tokenizer.chat_template == same.chat_template
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = same.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = AutoModelForCausalLM.from_pretrained(smollm2).generate(**inputs, max_new_tokens=12, do_sample=False)
    assert same.decode(ids[0, inputs["input_ids"].shape[1] :]) == "The capital of France is Paris.<|im_end|>"
