"""Compare methods on one model and one task by the paper's protocol, and leave a table."""

from actshift.compare.compare import Progress, compare
from actshift.compare.methods import Choice, Method, choose
from actshift.compare.report import CompareReport, ReportRow
from actshift.compare.settings import CompareSettings

__all__ = ["Choice", "CompareReport", "CompareSettings", "Method", "Progress", "ReportRow", "choose", "compare"]
