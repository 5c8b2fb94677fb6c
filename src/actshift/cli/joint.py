"""What `actshift train` says of the two halves of a joint adapter, once it has trained and saved one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actshift.analysis import Redundancy
    from actshift.training import TrainSettings


@dataclass(frozen=True)
class JointReport:
    """How far the saved adapter is from its rule, 0 to 1 (None without LoRA on an MLP output map), and its redundancy.

    `held_out` says whether the redundancy was measured on rows that the run was not trained on.
    """

    violation: float | None
    redundancy: Redundancy
    held_out: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, ready for JSON."""
        return {"violation": self.violation, "held_out": self.held_out, **self.redundancy.to_dict()}

    def __str__(self) -> str:
        rows = "held-out rows" if self.held_out else "rows it was trained on; --eval-share holds some out"
        lines = [str(self.redundancy), f"Measured on {rows}."]
        if self.violation is not None:
            lines.append(f"In the saved file at most {self.violation:.1e} of a row of W_down lies in col(B).")
        return "\n".join(lines)


def joint_report(settings: TrainSettings) -> JointReport:
    """Load the joint adapter that a run with `settings` left, and measure it."""
    from actshift.analysis import redundancy
    from actshift.encoding import padded
    from actshift.training.adapting import load_base
    from actshift.training.encoding import Examples
    from actshift.training.inputs import read_inputs
    from actshift.tuner import load_adapter, orthogonality_violations, steering_layers

    inputs = read_inputs(settings)
    base, tokenizer = load_base(settings, inputs.head)
    model = load_adapter(base, str(settings.out)).eval()
    bound = any(layer.constraints for layer in steering_layers(model).values())
    violation = max(orthogonality_violations(model).values()) if bound else None
    read = Examples.of(inputs, tokenizer, settings)
    examples, size = inputs.objective.read(read.held_out or read.train, tokenizer), settings.batch_size
    batches = (padded(examples[start : start + size], tokenizer) for start in range(0, len(examples), size))
    return JointReport(violation, redundancy(model, batches), read.held_out is not None)
