"""The model card of a trained adapter: what it is, how to load it, how it was made."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from actshift import __version__
from actshift.training.fit import FitResult
from actshift.training.settings import TrainSettings
from actshift.training.steering import steering_config

CARD = """\
---
{header}
---

# Steering adapter for {model}

Shifts the {site} activations by a learned `{adapter}`: {trainable:,} parameters, {share:.3%} of the model.

## Use

Import actshift before the adapter is loaded, or PEFT does not know its type and raises a KeyError.

```python
import actshift
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
model.set_strength(1.0)  # 0 is the base model
```

Or `pip install actshift` and `actshift generate --model {model} --adapter {folder} --prompt "..."`.

## Training

Base model `{model}`, data `{data}` ({rows:,} rows), {steps:,} steps with actshift {version}.

| | |
|---|---|
{figures}

```
{command}
```
"""


def model_card(settings: TrainSettings, fit: FitResult) -> str:
    """Return the README.md of the adapter that `settings` made, with the figures of `fit`."""
    figures = {"train loss, last steps": f"{fit.train_loss:.4f}"}
    if fit.eval_loss is not None:
        figures["evaluation loss, best"] = f"{fit.eval_loss:.4f} (step {fit.best_step:,}, which is the state saved)"
    return CARD.format(
        header="\n".join(_header(settings)),
        model=settings.model,
        site=settings.site.replace("_", "-"),
        adapter=steering_config(settings).intervention,
        trainable=fit.trainable,
        share=fit.share,
        folder=settings.out,
        data=settings.data,
        rows=fit.rows,
        steps=fit.steps,
        version=__version__,
        figures="\n".join(f"| {name} | {value} |" for name, value in figures.items()),
        command=command(settings),
    )


def command(settings: TrainSettings) -> str:
    """Return the command line that makes a run with `settings`.

    >>> command(TrainSettings(model="gpt2", data="rows.jsonl", out="run", rank=4))
    'actshift train --model gpt2 --data rows.jsonl --out run --rank 4'
    """
    words = ["actshift train"]
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value == item.default:
            continue
        flag = f"--{item.name.replace('_', '-')}"
        for one in value if isinstance(value, tuple) else [value]:
            words.append(flag if one is True else f"{flag} {shlex.quote(str(one))}")
    return " ".join(words)


def _header(settings: TrainSettings) -> list[str]:
    lines = ["library_name: peft", "pipeline_tag: text-generation", "tags: [actshift, steering]"]
    # The hub takes ids only: a folder or file of this machine is named in the text instead.
    if settings.model and not Path(settings.model).exists():
        lines.insert(0, f"base_model: {settings.model}")
    if settings.data and not Path(settings.data).exists():
        lines.append(f"datasets: [{settings.data}]")
    return lines
