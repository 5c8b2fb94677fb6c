"""Settings and functions that several tests of training use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actshift.training.trainer import Checkpoints

METHODS: dict[str, dict[str, Any]] = {
    "steering": {},
    "lora": {"method": "lora", "lora_r": 2, "lora_targets": ("q_proj", "down_proj")},
    "joint": {"method": "joint", "lora_learning_rate": 1e-3},
    "full": {"method": "full"},
    "loreft": {"adapter": "loreft", "site": "post_mlp", "positions": "ends", "first_tokens": 2, "last_tokens": 2},
    "jola": {"adapter": "jola"},
    "lofit": {"adapter": "lofit", "lofit_heads": 3},
}


class Killed(BaseException):
    """As SIGKILL: no handler of ours or of a library catches it."""


def weights(folder: str | Path) -> bytes:
    return Path(folder, "adapter_model.safetensors").read_bytes()


def kill_at(step: int, monkeypatch, method: str) -> None:
    original = getattr(Checkpoints, method)

    def die(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise Killed
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(Checkpoints, method, die)
