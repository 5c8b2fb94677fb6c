"""The orthogonality rule of joint adapters, and the linear algebra that measures and enforces it."""

from actshift.orthogonality.basis import chance_overlap as chance_overlap
from actshift.orthogonality.basis import orthonormal_basis as orthonormal_basis
from actshift.orthogonality.basis import parseval_frame as parseval_frame
from actshift.orthogonality.basis import principal_cosines as principal_cosines
from actshift.orthogonality.basis import project_away as project_away
from actshift.orthogonality.basis import project_rows as project_rows
from actshift.orthogonality.basis import span_dimensions as span_dimensions
from actshift.orthogonality.basis import violation as violation
from actshift.orthogonality.rule import Orthogonality as Orthogonality
