"""The model card of a result: a summary, the code to load it, and the record of its training."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from actshift import __version__
from actshift.data.rows import parse_sources
from actshift.gguf import find_gguf
from actshift.markdown import markdown_block, markdown_code, markdown_text
from actshift.model_head import CAUSAL, Head
from actshift.training.configs import interventions_of
from actshift.training.result import TrainResult
from actshift.training.settings import TrainSettings, command_line

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
CARD = """\
---
{header}
---

# {title}

{summary} {fit.trainable:,} parameters were trained, {fit.share:.3%} of the model.

## Use

{use}

## Training

Base model {base}, data {data} ({fit.rows:,} rows), {fit.steps:,} steps with actshift {version}.

| | |
|---|---|
{metrics}

{command}
"""

STEERING = """\
Import actshift before loading the adapter. Otherwise PEFT does not know its type and raises a KeyError.

```python
import actshift
{load}
{switch}
```

Or `pip install actshift` and {shell}."""

LORA = """\
```python
{load}
model = model.merge_and_unload()
```"""

LOAD = """\
from peft import {peft_class}

model = {peft_class}.from_pretrained({out}{classes})"""

LOAD_GGUF = """\
from actshift.loading import load_model{import_head}
from peft import PeftModel

base, tokenizer = load_model({base}{head})  # a GGUF file, which PEFT cannot load
model = PeftModel.from_pretrained(base, {out})"""

FULL = """\
```python
from transformers import {whole_class}

model = {whole_class}.from_pretrained({out})
```"""

HEADS = {
    "CAUSAL_LM": ("AutoPeftModelForCausalLM", "text-generation"),
    "SEQ_CLS": ("AutoPeftModelForSequenceClassification", "text-classification"),
    "TOKEN_CLS": ("AutoPeftModelForTokenClassification", "token-classification"),
    "FEATURE_EXTRACTION": ("AutoPeftModelForFeatureExtraction", "feature-extraction"),
}  # PEFT's class and the hub's pipeline
STRENGTH = "model.set_strength(1.0)  # 0 is the base model"
HALVES = 'actshift.set_halves(model, "both")  # or "weights", or "activations"'
METHODS = {
    "steering": ("Steering adapter for {}", STEERING.replace("{switch}", STRENGTH)),
    "lora": ("LoRA for {}", LORA),
    "joint": ("LoRA and steering adapter for {}", STEERING.replace("{switch}", HALVES)),
    "full": ("{}, fine-tuned", FULL),
}  # the title and the section on loading


def model_card(result: TrainResult) -> str:
    """Return the README.md of a result."""
    settings, fit, head = result.settings, result.fit, result.head
    title, use = METHODS[settings.method]
    verb, arguments = ("generate", '--prompt "..."') if head.task_type == "CAUSAL_LM" else ("eval", "--data ROWS")
    names = f"--model {shlex.quote(str(settings.model))} --adapter {shlex.quote(str(settings.out))}"
    load = (LOAD_GGUF if find_gguf(settings.model) else LOAD).format(
        base=json.dumps(settings.model),
        out=json.dumps(settings.out),
        import_head="" if head == CAUSAL else "\nfrom actshift.model_head import Head",
        head="" if head == CAUSAL else f", head={head!r}",
        peft_class=HEADS[head.task_type][0],
        classes=f", num_labels={len(head.labels)}" if head.classifies else "",
    )
    use = use.format(
        load=load,
        out=json.dumps(settings.out),
        whole_class=head.auto_class.__name__,
        shell=markdown_code(f"actshift {verb} {names} {arguments}"),
    )
    return CARD.format(
        header="\n".join(_header(settings, head)),
        title=title.format(markdown_text(settings.model)),
        summary=" ".join(_summary(settings, head)),
        use=use,
        settings=settings,
        base=" at the revision ".join(markdown_code(name) for name in (settings.model, settings.revision) if name),
        data=", ".join(map(markdown_code, _sources(settings) or [str(settings.task)])),
        fit=fit,
        version=__version__,
        metrics="\n".join(f"| {markdown_text(name)} | {value} |" for name, value in _metrics(result).items()),
        command=markdown_block(command_line("actshift train", settings)),
    )


def _summary(settings: TrainSettings, head: Head) -> Iterator[str]:
    if settings.interventions:
        yield f"Shifts activations at the sites, blocks and ranks in {markdown_text(settings.interventions)}."
    elif settings.steers:
        [intervention] = interventions_of(settings)
        shift = "HeadVector" if settings.two_phases else intervention.adapter
        tokens = "" if settings.positions == "all" else f" at these tokens: {intervention.positions}"
        yield f"Shifts the {intervention.site.replace('_', '-')} activations by a learned `{shift}`{tokens}."
    if settings.method in ("lora", "joint"):
        targets = ", ".join(settings.lora_targets or ["all linear layers of the blocks"])
        yield f"Updates {markdown_text(targets)} by LoRA of rank {settings.lora_r}, α {settings.lora_alpha:g}."
    if settings.method == "full":
        yield "Every weight is fine-tuned."
    if head.classifies:
        yield f"Its head classifies into {markdown_text(', '.join(head.labels))}."


def _metrics(result: TrainResult) -> dict[str, str]:
    fit, metrics = result.fit, dict[str, str]()
    if result.selection is not None:
        metrics["heads"] = f"{result.selection}, selected in {result.selection.fit.steps:,} steps before these"
    metrics["train loss, last steps"] = f"{fit.train_loss:.4f}"
    if fit.eval_loss is not None:
        metrics["evaluation loss, best"] = f"{fit.eval_loss:.4f} (step {fit.best_step:,}, whose state is saved)"
    return metrics | {name: f"{value:.3f}" for name, value in fit.figures.items()}


def _header(settings: TrainSettings, head: Head) -> list[str]:
    library = "transformers" if settings.method == "full" else "peft"
    tags = {"full": "actshift", "lora": "actshift, lora"}.get(settings.method, "actshift, steering")
    lines = [f"library_name: {library}", f"pipeline_tag: {HEADS[head.task_type][1]}", f"tags: [{tags}]"]
    # The hub accepts only ids here; the text names local folders and files.
    named = ([settings.model], _sources(settings))
    base, data = (
        [name for name in names if name and HUB_ID.fullmatch(name) and not Path(name).exists()] for names in named
    )
    return [*(f"base_model: {name}" for name in base), *lines, *([f"datasets: [{', '.join(data)}]"] if data else [])]


def _sources(settings: TrainSettings) -> list[str]:
    return list(parse_sources(settings.data)) if settings.data else []
