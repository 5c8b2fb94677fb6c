"""The tasks of lm-eval-harness, on a model with whatever adapter is on it."""

from actshift.evaluation.harness.report import HarnessReport
from actshift.evaluation.harness.run import harness
from actshift.evaluation.harness.tasks import find_tasks

__all__ = ["HarnessReport", "find_tasks", "harness"]
