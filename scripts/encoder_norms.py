"""What a norm behind the skip does to shifts, as JSON.

``python scripts/encoder_norms.py --base B --full F --data D --adapters A...``

B is a BERT model, F the same fine-tuned to tell classes, A steering adapters of B, D rows of text with a label. Of each
block h = LN(z), z = LN(x + attention) + MLP, it tells how far x + attention + MLP is from h; how well J δy, with J the
norm's Jacobian, foretells what a change δy of the MLP's branch does to h; and how far shifts behind the norm leave the
sphere on which it puts every state.
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
from actshift.analysis.capture import Batch, inference, observe, unmasked
from actshift.cli.models import load_steered
from actshift.data import LABELLED, load_rows
from actshift.loading import load_model
from actshift.model_head import Head, labels_of
from actshift.sites import find_blocks

TEXTS = 128
DEAD = 1e-6
"""A norm's scale below this is one of 0: MiniLM's last one has three such coordinates."""


def parts(block: Any) -> list[nn.Module]:
    """Return a BERT block with its attention, its MLP, and the norm between the two."""
    first, last = block.attention.output, block.output
    return [block, first.dense, last.dense, first.LayerNorm]


def share(one: Tensor, whole: Tensor) -> float:
    """Return the energy of one in that of the other."""
    return (one.square().sum() / whole.square().sum()).item()


def off_the_sphere(h: Tensor, plain: Tensor, norm: Any) -> dict[str, float]:
    """Return the size of a shift from `plain`, which a norm gave, and the radius that it ends at, in the norm's units.

    The norm gives states of root mean square 1; a shift of size s at right angles to them ends at √(1 + s²). A
    coordinate whose scale in the norm is 0 is in no such units, and left out.
    """
    alive = norm.weight.abs() >= DEAD
    state, shift = ((one / norm.weight)[:, alive] for one in (h - norm.bias, h - plain))
    return {"size": shift.square().mean().sqrt().item(), "radius": state.square().mean().sqrt().item()}


def taken_out(change: Tensor, z: Tensor) -> float:
    """Return the share of a change that lies along 1 and along z less its mean: what a norm takes out of it."""
    centred = z - z.mean(-1, keepdim=True)
    ones, state = torch.ones_like(z) / z.shape[-1] ** 0.5, centred / centred.norm(dim=-1, keepdim=True)
    kept = [(change * one).sum(-1, keepdim=True) * one for one in (ones, state)]
    return share(kept[0] + kept[1], change)


def look(model: Any, batch: Batch) -> list[list[Tensor]]:
    """Return of each block what it takes, and what each of its parts gives, real tokens only."""
    blocks = [block for _, block in find_blocks(model)]
    calls = observe(model, batch, [part for block in blocks for part in parts(block)])
    own = [calls[place : place + 4] for place in range(0, len(calls), 4)]
    return [[unmasked(one, batch) for one in (four[0].args[0], *(call.output for call in four))] for four in own]


def of_batch(base: Any, full: Any, steered: dict[str, Any], batch: Batch) -> list[dict[str, Any]]:
    """Return the figures of each block."""
    seen, tuned = look(base, batch), look(full, batch)
    shifted = {name: look(model, batch) for name, model in steered.items()}
    rows = []
    blocks: Any = zip(find_blocks(base), find_blocks(full), strict=True)
    for place, ((_, block), (_, twin)) in enumerate(blocks):
        x, h, attention, mlp, middle = seen[place]
        norm, z = block.output.LayerNorm, middle + mlp
        change = twin.output.dense(twin.intermediate(middle)) - mlp
        moved, first = norm(z + change) - h, jvp(norm, (z,), (change,))[1]
        row = {
            "sum": share(x + attention + mlp - h, h) ** 0.5,
            "normed": share(norm(block.attention.output.LayerNorm(x + attention) + mlp) - h, h) ** 0.5,
            "missed": share(moved - first, moved) ** 0.5,
            "taken_out": taken_out(change, z),
            "oracle": off_the_sphere(tuned[place][1], h, norm),
        }
        for name, others in shifted.items():
            _, h, _, mlp, middle = others[place]
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
    steered = {Path(one).parts[-3]: load_steered(None, [one], 1.0, False)[0] for one in arguments.adapters}
    batches = token_batches(load_rows(arguments.data, limit=TEXTS, kinds=LABELLED), tokenizer, 32, labels=labels)
    with inference(base, full, *steered.values()):
        found = [of_batch(base, full, steered, batch) for batch in batches]
    print(json.dumps({"texts": TEXTS, "layers": [averaged(rows) for rows in zip(*found, strict=True)]}, indent=1))


def averaged(rows: Sequence[Any]) -> Any:
    """Return the mean of figures, and of figures by name."""
    if isinstance(rows[0], dict):
        return {name: averaged([row[name] for row in rows]) for name in rows[0]}
    return mean(rows)


if __name__ == "__main__":
    main()
