"""The model card of a result: what it is, how to load it, how it was made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from actshift import __version__
from actshift.training.result import TrainResult
from actshift.training.settings import TrainSettings
from actshift.training.settings.command_line import command_line
from actshift.training.steering import steering_config

CARD = """\
---
{header}
---

# {title}

{what} {trainable:,} parameters were trained, {share:.3%} of the model.

## Use

{use}

## Training

Base model `{model}`, data `{data}` ({rows:,} rows), {steps:,} steps with actshift {version}.

| | |
|---|---|
{figures}

```
{command}
```
"""

STEERING = """\
Import actshift before the adapter is loaded, or PEFT does not know its type and raises a KeyError.

```python
import actshift
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
{switch}
```

Or `pip install actshift` and `actshift generate --model {model} --adapter {folder} --prompt "..."`."""

LORA = """\
```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{folder}").merge_and_unload()
```"""

FULL = """\
```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{folder}")
```"""

TITLES = {
    "steering": "Steering adapter for {}",
    "lora": "LoRA for {}",
    "joint": "LoRA and steering adapter for {}",
    "full": "{}, fine-tuned",
}
USES = {
    "steering": STEERING.replace("{switch}", "model.set_strength(1.0)  # 0 is the base model"),
    "lora": LORA,
    "joint": STEERING.replace("{switch}", 'actshift.set_halves(model, "both")  # or "weights", or "activations"'),
    "full": FULL,
}


def model_card(result: TrainResult) -> str:
    """Return the README.md of a run's result, with its figures."""
    settings, fit = result.settings, result.fit
    return CARD.format(
        header="\n".join(_header(settings)),
        title=TITLES[settings.method].format(settings.model),
        what=" ".join(_what(settings)),
        use=USES[settings.method].format(model=settings.model, folder=settings.out),
        model=settings.model,
        trainable=fit.trainable,
        share=fit.share,
        data=settings.data,
        rows=fit.rows,
        steps=fit.steps,
        version=__version__,
        figures="\n".join(f"| {name} | {value} |" for name, value in _figures(result).items()),
        command=command_line("actshift train", settings),
    )


def _what(settings: TrainSettings) -> Iterator[str]:
    if settings.interventions:
        yield f"Shifts activations at the sites, blocks and ranks that {settings.interventions} lists."
    elif settings.steers:
        config = steering_config(settings)
        shift = "HeadVector" if settings.two_phases else config.adapter
        where = "" if settings.positions == "all" else f" at these tokens: {config.positions}"
        yield f"Shifts the {str(config.site).replace('_', '-')} activations by a learned `{shift}`{where}."
    if settings.method != "steering" and settings.method != "full":
        targets = ", ".join(settings.lora_targets or ["every linear map of the blocks"])
        yield f"Updates {targets} by LoRA of rank {settings.lora_r}, α {settings.lora_alpha:g}."
    if settings.method == "full":
        yield "Every weight is fine-tuned."


def _figures(result: TrainResult) -> dict[str, str]:
    fit, figures = result.fit, {}
    if result.selection is not None:
        figures["heads"] = f"{result.selection}, chosen in {result.selection.fit.steps:,} steps before these"
    figures["train loss, last steps"] = f"{fit.train_loss:.4f}"
    if fit.eval_loss is not None:
        figures["evaluation loss, best"] = f"{fit.eval_loss:.4f} (step {fit.best_step:,}, which is the state saved)"
    figures |= {name: f"{value:.3f}" for name, value in fit.figures.items()}
    return figures


def _header(settings: TrainSettings) -> list[str]:
    whole = settings.method == "full"
    tags = ["actshift", *(["steering"] if settings.steers else []), *(["lora"] if settings.method == "lora" else [])]
    lines = [
        f"library_name: {'transformers' if whole else 'peft'}",
        "pipeline_tag: text-generation",
        f"tags: [{', '.join(tags)}]",
    ]
    # The hub takes ids only: a folder or file of this machine is named in the text instead.
    if settings.model and not Path(settings.model).exists():
        lines.insert(0, f"base_model: {settings.model}")
    if settings.data and not Path(settings.data).exists():
        lines.append(f"datasets: [{settings.data}]")
    return lines
