"""Compare fine-tuning methods on one model and one task by the protocol of arXiv 2603.00425."""

from actshift.compare.compare import Progress as Progress
from actshift.compare.compare import compare as compare
from actshift.compare.methods import Method as Method
from actshift.compare.methods import select_methods as select_methods
from actshift.compare.report import CompareReport as CompareReport
from actshift.compare.report import ReportRow as ReportRow
from actshift.compare.settings import CompareSettings as CompareSettings
