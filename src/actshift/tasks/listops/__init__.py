"""ListOps (Nangia and Bowman, 2018): nested list operations over digits, drawn and worked out."""

from actshift.tasks.listops.evaluate import evaluate
from actshift.tasks.listops.expression import Expression
from actshift.tasks.listops.generate import generate, stream

__all__ = ["Expression", "evaluate", "generate", "stream"]
