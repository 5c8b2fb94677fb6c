"""Compare fine-tuning methods on one model and one task by the protocol of arXiv 2603.00425."""

from actshift.compare.compare import Progress, compare
from actshift.compare.methods import Method, select_methods
from actshift.compare.report import CompareReport, ReportRow
from actshift.compare.settings import CompareSettings

__all__ = ["CompareReport", "CompareSettings", "Method", "Progress", "ReportRow", "compare", "select_methods"]
