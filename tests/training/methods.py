"""The methods that the trainer is tested with, as settings for a tiny Llama of three blocks with four heads."""

from __future__ import annotations

from typing import Any

METHODS: dict[str, dict[str, Any]] = {
    "steering": {},
    "lora": {"method": "lora", "lora_r": 2, "lora_targets": ("q_proj", "down_proj")},
    "joint": {"method": "joint", "lora_learning_rate": 1e-3},
    "full": {"method": "full"},
    "loreft": {"adapter": "loreft", "site": "post_mlp", "positions": "ends", "first_tokens": 2, "last_tokens": 2},
    "jola": {"adapter": "jola"},
    "lofit": {"adapter": "lofit", "lofit_heads": 3},
}
