"""Run in pyreft's environment: time pyreft, the floor, LoRA and the base in turns, and print the figures as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import pyreft
import torch
from torch import nn

from benchmarks.figure import Figure
from benchmarks.models import Shape
from benchmarks.plain import (
    BASE,
    FLOOR,
    FROZEN,
    LORA,
    RANK,
    floor,
    forward_only,
    lora,
    prompts_of,
    training_step,
    whole_generation,
)
from benchmarks.timing import Samples, interleaved, milliseconds, ratios

EVERYWHERE, ENDS = f"LoReFT r={RANK} (pyreft), all positions", f"LoReFT r={RANK} (pyreft), f7+l7"
PACKAGES = ("pyreft", "pyvene", "transformers", "peft", "torch")


class LoReFT(nn.Module):
    """pyreft's LoReFT after every block, at all tokens or at the first and last `ends`, called like a model."""

    def __init__(self, model: Any, shape: Shape, ends: int | None = None) -> None:
        super().__init__()
        self.intervenable = pyreft.get_reft_model(model, config(shape), set_device=False)
        self.places = None  # pyvene then gathers no positions, which is its fastest path
        if ends is not None:
            tokens = [*range(ends), *range(shape.seq - ends, shape.seq)]
            self.places = {"sources->base": (None, [[tokens] * shape.batch] * shape.layers)}

    def forward(self, input_ids: torch.Tensor, **settings: Any) -> Any:
        """Run pyreft's forward pass."""
        return self.intervenable({"input_ids": input_ids}, unit_locations=self.places, **settings)[1]

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any) -> Any:
        """Run pyreft's `generate`. All positions include the new tokens; the ends are in the prompt."""
        rows = {"input_ids": input_ids, "attention_mask": attention_mask}
        return self.intervenable.generate(rows, unit_locations=self.places, intervene_on_prompt=True, **settings)


def config(shape: Shape) -> Any:
    """Return LoReFT on every block in the model's dtype. The default of pyreft is bfloat16."""
    sizes = {"embed_dim": shape.width, "low_rank_dimension": RANK, "dtype": torch.float32}
    return pyreft.ReftConfig(
        representations=[
            {
                "layer": layer,
                "component": "block_output",
                "low_rank_dimension": RANK,
                "intervention": pyreft.LoreftIntervention(**sizes),
            }
            for layer in range(shape.layers)
        ]
    )


def adapted(shape: Shape) -> dict[str, nn.Module]:
    """Return the adapted models."""
    return {
        LORA: lora(shape.model()),
        EVERYWHERE: LoReFT(shape.model(), shape),
        ENDS: LoReFT(shape.model(), shape, ends=min(7, shape.seq // 2)),
    }


def steps(shape: Shape, rounds: int) -> Iterator[Figure]:
    """Yield the times of training steps, and their ratios to the floor and to LoRA."""
    cases = {FROZEN: forward_only(shape.model(), shape), FLOOR: training_step(floor(shape.model()), shape)}
    cases |= {name: training_step(model, shape) for name, model in adapted(shape).items()}
    samples = interleaved(cases, rounds)
    yield from milliseconds(samples, "step", f"training, {shape}")
    yield from ratios(samples, FLOOR, "step over the floor", f"training, {shape}")
    yield from ratios(samples, LORA, "step over LoRA", f"training, {shape}")


def generations(shape: Shape, calls: int, tokens: int) -> Iterator[Figure]:
    """Yield ratios to the base of `generate` for one token, for many tokens, and of the time per further token."""
    where = prompts_of(shape)
    models = {BASE: shape.model(), **adapted(shape)}
    cases: dict[tuple[str, int], Callable[[], None]] = {
        (name, count): whole_generation(model.eval(), shape, count)
        for name, model in models.items()
        for count in (1, tokens)
    }
    samples = interleaved(cases, calls, warmup=1)
    prefill: Samples = {name: samples[name, 1] for name in models}
    whole: Samples = {name: samples[name, tokens] for name in models}
    further = {
        name: [(total - first) / (tokens - 1) for total, first in zip(whole[name], prefill[name], strict=True)]
        for name in models
    }
    yield from milliseconds(further, "decode step", where)
    for name, times in {"prefill": prefill, "decode": further, "generate": whole}.items():
        yield from ratios(times, BASE, f"{name} over the base", where)


def main() -> None:
    """Measure the shapes in the command line argument."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    figures = [figure for shape in request["training"] for figure in steps(Shape(**shape), request["rounds"])]
    for shape in request["generation"]:
        figures += generations(Shape(**shape), request["calls"], request["tokens"])
    versions = {package: version(package) for package in PACKAGES}
    print(json.dumps({"versions": versions, "figures": [vars(figure) for figure in figures]}))


if __name__ == "__main__":
    main()
