"""What a run reads, as token ids and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actshift.encoding import Encoded
from actshift.training.inputs import Inputs
from actshift.training.objectives import Objective
from actshift.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Examples:
    """What a run reads: its objective, the encoded rows that it trains on, and those it is evaluated on, if any."""

    objective: Objective
    train: Encoded
    held_out: Encoded | None

    @classmethod
    def of(cls, inputs: Inputs, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings) -> Examples:
        """Encode the rows of both, as the objective does."""
        train, held_out = (
            inputs.objective.encode(rows, tokenizer, settings, inputs.head) if rows is not None else None
            for rows in (inputs.rows, inputs.eval_rows)
        )
        assert train is not None
        return cls(inputs.objective, train, held_out)

    def datasets(self) -> dict[str, Dataset | None]:
        """Return both as a trainer takes them."""
        from datasets import Dataset

        held_out = Dataset.from_list(self.held_out.examples) if self.held_out else None
        return {"train_dataset": Dataset.from_list(self.train.examples), "eval_dataset": held_out}

    @property
    def digest(self) -> str:
        """A fingerprint of all of them."""
        return self.train.digest + (self.held_out.digest if self.held_out else "")
