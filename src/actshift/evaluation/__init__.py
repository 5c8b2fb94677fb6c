"""Batched generation, and scores of completions and predictions."""

from actshift.evaluation.calibrate import Calibration, calibrate
from actshift.evaluation.evaluate import evaluate, exact_match
from actshift.evaluation.generation import generate_completions, stream_completion
from actshift.evaluation.report import EvalReport, Prediction

__all__ = [
    "Calibration", "EvalReport", "Prediction", "calibrate", "evaluate", "exact_match", "generate_completions",
    "stream_completion",
]  # fmt: skip
