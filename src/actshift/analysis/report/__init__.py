"""One page with the figures of everything that was looked at, each with how to read it and what to do."""

from actshift.analysis.report.findings import Findings, look
from actshift.analysis.report.report import Report
from actshift.analysis.report.section import Section

__all__ = ["Findings", "Report", "Section", "look"]
