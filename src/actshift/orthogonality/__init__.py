"""Keeping two halves of an adapter apart: the rule, and the linear algebra that measures and enforces it."""

from actshift.orthogonality.basis import orthonormal_basis, parseval_frame, project_away, project_columns, project_rows
from actshift.orthogonality.measure import (
    chance_overlap,
    principal_angles,
    principal_cosines,
    span_dimensions,
    violation,
)
from actshift.orthogonality.rule import Orthogonality

__all__ = [
    "Orthogonality",
    "chance_overlap",
    "orthonormal_basis",
    "parseval_frame",
    "principal_angles",
    "principal_cosines",
    "project_away",
    "project_columns",
    "project_rows",
    "span_dimensions",
    "violation",
]
