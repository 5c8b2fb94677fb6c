"""Measure the effect of the norm after the skip connection on shifts, and print it as JSON.

``python scripts/encoder_norms.py --base B --full F --data D --adapters A...``

B is a BERT model, F is the same model fine-tuned as a classifier, A are steering adapters of B, and D is a file of
labelled text rows. Each block computes h = LN(z) with z = LN(x + attention) + MLP. For each block the script measures

* the distance of x + attention + MLP from h;
* the error of J δy, with J the Jacobian of the norm, as a prediction of how a change δy of the MLP output changes h;
* the distance of shifted states from the sphere on which the norm puts every state.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jvp

from actshift.analysis.batches import token_batches
from actshift.analysis.capture import Batch, capture_calls, inference, unmasked
from actshift.cli.models import load_steered
from actshift.data import LABELLED, load_rows
from actshift.loading import load_model
from actshift.model_head import Head, labels_of
from actshift.sites import find_blocks

TEXTS = 128
DEAD = 1e-6
"""Scales of a norm below this count as 0; the last norm of MiniLM has three such coordinates."""


def parts(block: Any) -> list[nn.Module]:
    """Return a BERT block, the output layers of its attention and of its MLP, and the norm between the two."""
    first, last = block.attention.output, block.output
    return [block, first.dense, last.dense, first.LayerNorm]


def energy_share(part: Tensor, whole: Tensor) -> float:
    """Return the energy of `part` as a share of the energy of `whole`."""
    return (part.square().sum() / whole.square().sum()).item()


def off_the_sphere(h: Tensor, plain: Tensor, norm: Any) -> dict[str, float]:
    """Return the size of the shift from the norm's output `plain` to `h`, and the radius of `h`, in units of the norm.

    In these units the norm gives states of root mean square 1, and an orthogonal shift of size s ends at radius
    √(1 + s²). Coordinates whose scale in the norm is 0 are left out.
    """
    alive = norm.weight.abs() >= DEAD
    state, shift = ((value / norm.weight)[:, alive] for value in (h - norm.bias, h - plain))
    return {"size": shift.square().mean().sqrt().item(), "radius": state.square().mean().sqrt().item()}


def removed_share(change: Tensor, z: Tensor) -> float:
    """Return the share of a change that a norm removes: its components along 1 and along the centred z."""
    centred = z - z.mean(-1, keepdim=True)
    ones, state = torch.ones_like(z) / z.shape[-1] ** 0.5, centred / centred.norm(dim=-1, keepdim=True)
    removed = [(change * unit).sum(-1, keepdim=True) * unit for unit in (ones, state)]
    return energy_share(removed[0] + removed[1], change)


def capture_blocks(model: Any, batch: Batch) -> list[list[Tensor]]:
    """Return the input of each block and the output of each of its parts, without padding tokens."""
    blocks = [block for _, block in find_blocks(model)]
    calls = capture_calls(model, batch, [part for block in blocks for part in parts(block)])
    by_block = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    return [
        [unmasked(value, batch) for value in (four[0].args[0], *(call.output for call in four))] for four in by_block
    ]


def measure_batch(base: Any, full: Any, steered: dict[str, Any], batch: Batch) -> list[dict[str, Any]]:
    """Return the measurements of each block."""
    plain, tuned = capture_blocks(base, batch), capture_blocks(full, batch)
    shifted = {name: capture_blocks(model, batch) for name, model in steered.items()}
    rows = []
    blocks: Any = zip(find_blocks(base), find_blocks(full), strict=True)
    for i, ((_, block), (_, tuned_block)) in enumerate(blocks):
        x, h, attention, mlp, middle = plain[i]
        norm, z = block.output.LayerNorm, middle + mlp
        change = tuned_block.output.dense(tuned_block.intermediate(middle)) - mlp
        moved, first = norm(z + change) - h, jvp(norm, (z,), (change,))[1]
        row = {
            "sum": energy_share(x + attention + mlp - h, h) ** 0.5,
            "normed": energy_share(norm(block.attention.output.LayerNorm(x + attention) + mlp) - h, h) ** 0.5,
            "missed": energy_share(moved - first, moved) ** 0.5,
            "taken_out": removed_share(change, z),
            "oracle": off_the_sphere(tuned[i][1], h, norm),
        }
        for name, others in shifted.items():
            _, h, _, mlp, middle = others[i]
            row[name] = off_the_sphere(h, norm(middle + mlp), norm)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--base", "--full", "--data"):
        parser.add_argument(name, required=True)
    parser.add_argument("--adapters", nargs="*", default=[])
    arguments = parser.parse_args()
    full, tokenizer, _ = load_steered(arguments.full, [], 1.0, False)
    labels = labels_of(full.config)
    base, _ = load_model(arguments.base, head=Head("SEQ_CLS", labels))
    steered = {Path(path).parts[-3]: load_steered(None, [path], 1.0, False)[0] for path in arguments.adapters}
    batches = token_batches(load_rows(arguments.data, limit=TEXTS, kinds=LABELLED), tokenizer, 32, labels=labels)
    with inference(base, full, *steered.values()):
        by_batch = [measure_batch(base, full, steered, batch) for batch in batches]
    print(json.dumps({"texts": TEXTS, "layers": [average(rows) for rows in zip(*by_batch, strict=True)]}, indent=1))


def average(rows: Sequence[Any]) -> Any:
    """Return the mean of numbers, or of each entry of dictionaries."""
    if isinstance(rows[0], dict):
        return {name: average([row[name] for row in rows]) for name in rows[0]}
    return mean(rows)


if __name__ == "__main__":
    main()
