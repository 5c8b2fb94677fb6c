"""Generate in batches, and score what was generated."""

from actshift.evaluation.evaluate import evaluate, exact_match
from actshift.evaluation.generation import generate_completions
from actshift.evaluation.report import EvalReport, Prediction
from actshift.evaluation.streaming import stream_completion

__all__ = ["EvalReport", "Prediction", "evaluate", "exact_match", "generate_completions", "stream_completion"]
