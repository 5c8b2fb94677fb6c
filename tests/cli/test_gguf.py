"""Every verb on a GGUF file gives the result of the same verb on the folder that it is converted to."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from actshift.loading import load_model
from tests.cli.conftest import PAIRS, TEXTS, Run
from tests.gguf_files import save_gguf
from tests.zoo import ARCHITECTURES

FEW = ("--max-new-tokens", 5)
LABELS = [{"text": f"w{i}", "label": "ab"[i % 2]} for i in range(20)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", quantised=True)


@pytest.fixture(scope="module")
def folder(file: Path) -> Path:
    """The same model as an ordinary folder."""
    return convert(file)


def convert(file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in load_model(file, device="cpu"):
            part.save_pretrained(str(file.with_suffix("")))
    return file.with_suffix("")


@pytest.fixture
def both(actshift: Run, file: Path, folder: Path, tmp_path: Path, monkeypatch) -> Callable[..., list[str]]:
    """Run a command on the file and on the folder, each in its own directory; return what the two print."""

    def run(*argv: object, stdin: str = "") -> list[str]:
        printed = []
        for model in (file, folder):
            directory = tmp_path / model.name
            directory.mkdir(exist_ok=True)
            monkeypatch.chdir(directory)
            monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
            code, out, err = actshift(*(model if word == "MODEL" else word for word in argv))
            assert code == 0, err
            assert err.count("is a GGUF file, and its weights are dequantised") <= (model == file)
            printed.append(out.replace(str(model), "MODEL"))
        return printed

    return run


@pytest.mark.slow
def test_an_adapter_is_trained_and_finds_its_base(actshift: Run, both, file: Path, write_rows, tmp_path: Path) -> None:
    both("train", "--model", "MODEL", "--data", write_rows(PAIRS), "--out", "run", "--max-steps", 2, "--rank", 2)
    weights = [tmp_path / name / "run" / "adapter_model.safetensors" for name in (file.name, file.stem)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    run = weights[0].parent
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == str(file)
    card = (run / "README.md").read_text()
    assert f'load_model("{file}")' in card and 'PeftModel.from_pretrained(base, "run")' in card
    code, out, err = actshift("generate", "--adapter", run, "--prompt", "w1 w2", *FEW)
    assert code == 0, err
    assert out == actshift("generate", "--adapter", weights[1].parent, "--prompt", "w1 w2", *FEW).out
    assert f"base        {file}\n" in actshift("inspect", run).out
    code, out, err = actshift("train", "--resume", "--out", run)
    assert "already finished" in err


def test_inspect_shows_the_sites_without_loading_the_weights(both) -> None:
    file, folder = (json.loads(out) for out in both("inspect", "MODEL", "--json"))
    assert (file["source"], file["blocks"], file["architecture"]) == ("MODEL", 3, "LlamaForCausalLM")
    assert file.pop("file_bytes") < folder.pop("file_bytes")
    assert file == folder


def test_a_revision_of_a_file_is_refused(refused, file: Path) -> None:
    message = refused("generate", "--model", file, "--revision", "v1", "--prompt", "w1")
    assert "is a file, and only models on the hub have revisions" in message


@pytest.mark.slow
def test_verbs_that_only_read_print_the_same(both, actshift: Run, write_rows, finetuned, tmp_path: Path) -> None:
    rows = write_rows(PAIRS)
    for argv in (
        ("generate", "--model", "MODEL", "--prompt", "w1 w2", *FEW),
        ("locate", "--model", "MODEL", "--data", rows, "--rank", 2, "--site", "post_block", "--json"),
    ):
        file, folder = both(*argv)
        assert file == folder and file
    file, folder = both("chat", "--model", "MODEL", *FEW, stdin="w1\nw2\n/exit\n")
    assert file == folder and file.strip("> \n")
    file, folder = (json.loads(out) for out in both("eval", "--model", "MODEL", "--data", rows, *FEW, "--json"))
    assert file["total"] == 20 and file["accuracy"] == folder["accuracy"]


@pytest.mark.slow
def test_verbs_that_write_adapters_write_the_same(both, write_rows, tmp_path: Path) -> None:
    sides = []
    for side in ("positive", "negative"):
        path = tmp_path / f"{side}.jsonl"
        path.write_text("".join(json.dumps({"prompt": f"w{i}", "completion": side[0]}) + "\n" for i in range(6)))
        sides += [f"--{side}", path]
    both("vector", "--model", "MODEL", *sides, "--layer", -1, "--out", "vector")
    base = ("--model", "MODEL", "--data", write_rows(PAIRS), "--max-steps", 2)
    both("train", *base, "--method", "lora", "--out", "lora")
    both("train", *base, "--method", "joint", "--out", "joint", "--eval-share", 0.2)
    both("export", "--adapter", "lora", "--to", "merged", "--out", "merged")
    both("train", *base, "--method", "full", "--out", "full", "--learning-rate", 1e-2)
    base = ("--model", "MODEL", "--data", write_rows(LABELS), "--max-steps", 2)
    both("train", *base, "--out", "classifier", "--objective", "classify")
    assert 'load_model("' in (card := (tmp_path / "tiny.gguf/classifier/README.md").read_text())
    assert ", head=Head(task_type='SEQ_CLS', labels=('a', 'b'))" in card
    both("eval", "--adapter", "classifier", "--data", write_rows(LABELS), "--json")
    outs = sorted(path.relative_to(tmp_path / "tiny") for path in tmp_path.glob("tiny/*/*.safetensors"))
    assert len(outs) == 6
    for out in outs:
        assert (tmp_path / "tiny" / out).read_bytes() == (tmp_path / "tiny.gguf" / out).read_bytes(), out
    for name in ("merged", "full"):
        folder = tmp_path / "tiny.gguf" / name
        assert "quantization_config" not in (folder / "config.json").read_text()
        assert len(load_model(folder, device="cpu")[1]) == 96


@pytest.mark.slow
def test_verbs_on_pairs_of_models_and_reports(both, actshift: Run, file: Path, tmp_path: Path, write_rows) -> None:
    model = ARCHITECTURES["llama"]()
    for name, parameter in model.named_parameters():
        parameter.data += 0.01 * ("layers." in name)
    updated = convert(save_gguf(tmp_path / "updated.gguf", model))
    text = write_rows(TEXTS)
    pair = ("--model", "MODEL", "--data", text)
    file_out, folder_out = both("equivalence", *pair, "--updated", updated, "--rank", 2, "--json")
    assert json.loads(file_out) and file_out == folder_out
    both("extract", *pair, "--finetuned", updated.with_suffix(".gguf"), "--rank", 2, "--out", "extracted")
    extracted = [tmp_path / name / "extracted/adapter_model.safetensors" for name in ("tiny", "tiny.gguf")]
    assert extracted[0].read_bytes() == extracted[1].read_bytes()
    both("report", "--adapter", "extracted", "--data", text, "--out", "report.html")


@pytest.mark.slow
def test_a_comparison_reads_the_file(actshift: Run, file: Path, write_rows, tmp_path: Path) -> None:
    (tmp_path / "methods.yaml").write_text("methods:\n  vector: {rates: [1e-2]}\n")
    command = ("compare", "--model", file, "--data", write_rows(PAIRS * 2), "--methods", tmp_path / "methods.yaml")
    few = ("--seeds", 1, "--max-steps", 2, "--batch-size", 4, "--max-new-tokens", 3)
    code, out, err = actshift(*command, *few, "--out", tmp_path / "table")
    assert (code, err.count("is a GGUF file")) == (0, 1), err
    assert "tiny.gguf" in out and (tmp_path / "table/table.json").is_file()
