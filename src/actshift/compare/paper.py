"""The methods that arXiv 2603.00425 compares, each with its own recipe and its own grid of learning rates."""

from __future__ import annotations

from collections.abc import Sequence

from actshift.compare.method import Method

FULL_RATES = (5e-6, 1e-5, 2e-5, 5e-5, 1e-4)
LORA_RATES = (5e-5, 1e-4, 3e-4, 7e-4, 1.5e-3)
STEERING_RATES = (5e-4, 1e-3, 2e-3, 3e-3, 5e-3)

_JOINT = {"method": "joint", "schedule": "cosine", "warmup": 0.06}

METHODS = {
    method.name: method
    for method in (
        Method("full", "full fine-tuning", {"method": "full"}, FULL_RATES),
        # All linear maps are these seven in a Llama, and their like in a model that names them otherwise.
        Method("lora", "LoRA r=8", {"method": "lora", "lora_r": 8}, LORA_RATES),
        Method("reft", "ReFT r=8", {"adapter": "loreft", "site": "post_mlp", "rank": 8}, STEERING_RATES),
        # Every head kept: the paper gives LoFiT as many parameters as the post-block vector (0.003 % of Llama-3.2-1B).
        Method("lofit", "LoFiT", {"adapter": "lofit", "lofit_share": 1.0}, STEERING_RATES),
        Method("jola", "JoLA", {"adapter": "jola"}, STEERING_RATES),
        Method("vector", "post-block vector", {"adapter": "vector"}, STEERING_RATES),
        # The paper's table does not say which r=1 it is; its default nonlinearity is taken.
        Method("rank1", "post-block r=1", {"rank": 1}, STEERING_RATES),
        Method("linear", "post-block r=8 linear", {"rank": 8, "activation": "none"}, STEERING_RATES),
        Method("nonlinear", "post-block r=8", {"rank": 8}, STEERING_RATES),
        # The paper starts from 2e-4 and allows a rate for each half; here the halves walk up their own grids together.
        Method("joint", "joint, orthogonal", _JOINT, STEERING_RATES, LORA_RATES),
        Method("joint_free", "joint, free", {**_JOINT, "orthogonality": "none"}, STEERING_RATES, LORA_RATES),
        Method("post_mlp", "post-MLP r=8", {"site": "post_mlp", "rank": 8}, STEERING_RATES),
        Method("post_attention", "post-attention r=8", {"site": "post_attention", "rank": 8}, STEERING_RATES),
    )
}
"""Every method with a name of its own."""

PRESETS: dict[str, Sequence[str]] = {
    "paper": [name for name in METHODS if name not in ("post_mlp", "post_attention")],
    "all": list(METHODS),
}
"""Names that stand for several methods."""
