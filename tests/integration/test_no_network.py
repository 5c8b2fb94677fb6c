"""Local models and data need no network: nothing is looked up, downloaded or reported, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Python imports this module before the program, also in the worker processes of a comparison.
RECORDER = """
import os, socket

def record(name):
    def refuse(*args, **kwargs):
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(f"{name} {args[:2]}\\n")
        raise OSError("There is no network in this test.")
    return refuse

for name in ("getaddrinfo", "gethostbyname", "create_connection"):
    setattr(socket, name, record(name))
connect, refuse = socket.socket.connect, record("connect")
socket.socket.connect = lambda own, *args: (connect if own.family == socket.AF_UNIX else refuse)(own, *args)
"""

PROGRAM = """
import json
import socket
from copy import deepcopy
from pathlib import Path

import actshift
from actshift.analysis import contrast, extract
from actshift.analysis.batches import token_batches
from actshift.compare import CompareSettings, compare
from actshift.demo import BASE_DIR, load_base
from actshift.demo.task import make_rows
from actshift.evaluation import evaluate
from actshift.evaluation.harness import run_harness
from actshift.training import TrainSettings, train

rows = make_rows("train", 40, 0)
prompts = [row["prompt"] for row in rows]
Path("sft.jsonl").write_text("\\n".join(map(json.dumps, rows)))
Path("dpo.jsonl").write_text("\\n".join(
    json.dumps({"prompt": row["prompt"], "chosen": row["completion"], "rejected": " no"}) for row in rows
))
Path("labels.jsonl").write_text("\\n".join(json.dumps({"text": text, "label": text[12]}) for text in prompts))
common = {"model": str(BASE_DIR), "max_steps": 2, "batch_size": 4}
for name, settings in {
    "sft": {"data": "sft.jsonl", "eval_share": 0.25},
    "lora": {"data": "sft.jsonl", "method": "lora"},
    "joint": {"data": "sft.jsonl", "method": "joint"},
    "full": {"data": "sft.jsonl", "method": "full"},
    "dpo": {"data": "dpo.jsonl", "objective": "dpo"},
    "grpo": {"data": "sft.jsonl", "objective": "grpo", "reward": "right_answer"},
    "labels": {"data": "labels.jsonl"},
}.items():
    train(TrainSettings(**common, **settings, out=name))
    print("done", name, flush=True)

base, tokenizer = load_base()
steered = actshift.load_adapter(deepcopy(base), "sft")
steered.generate(**tokenizer(prompts[0], return_tensors="pt"), max_new_tokens=2)
steered.save_pretrained("again")
evaluate(steered, tokenizer, rows[:4], 2)
actshift.save_half(actshift.load_adapter(deepcopy(base), "joint"), "weights", "half")
print("done adapters", flush=True)

finetuned = deepcopy(base)
finetuned.get_submodule("model.layers.5.mlp.down_proj").weight.data.mul_(1.5)
extract.extract(deepcopy(base), finetuned, token_batches(prompts, tokenizer, 8), rank=2, nonlinear_steps=0, folder="x")
contrast.contrast(base, tokenizer, prompts[:8], [prompt + " one" for prompt in prompts[:8]])
print("done analyses", flush=True)

compare(CompareSettings(model=str(BASE_DIR), data="sft.jsonl", out="table", methods="lora", seeds=1, max_steps=1))
print("done compare", flush=True)

Path("tasks").mkdir()
Path("tasks/writes.yaml").write_text(json.dumps({
    "task": "writes", "dataset_path": "json", "output_type": "generate_until", "test_split": "test",
    "dataset_kwargs": {"data_files": {"test": str(Path("sft.jsonl").absolute())}},
    "doc_to_text": "{{prompt}}", "doc_to_target": "{{completion}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 2}, "metric_list": [{"metric": "exact_match"}],
}))
run_harness(base, tokenizer, ["writes"], include_path="tasks", limit=2, num_fewshot=0)
print("done harness", flush=True)

try:  # the only attempt: the recorder works
    socket.create_connection(("hub", 443))
except OSError:
    pass
"""


@pytest.mark.slow
def test_the_python_api_contacts_no_network(tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches" / "sitecustomize.py").write_text(RECORDER)
    (tmp_path / "program.py").write_text(PROGRAM)
    hidden = ("HF_", "CI", "TRANSFORMERS_OFFLINE")  # these would suppress requests
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    own = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "patches"), *sys.path]), "HF_HOME": str(tmp_path / "hf")}
    environment = {**kept, **own, "ATTEMPTS": str(tmp_path / "attempts")}
    command = [sys.executable, "program.py"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.count("done ") == 11
    assert (tmp_path / "attempts").read_text() == "create_connection (('hub', 443),)\n"
