"""Turn checked rows into token ids and labels, the way a model will meet them, and these into batches."""

from actshift.encoding.batch import padded
from actshift.encoding.classes import class_names
from actshift.encoding.encode import encode
from actshift.encoding.encoded import IGNORED, Encoded, Example

__all__ = ["IGNORED", "Encoded", "Example", "class_names", "encode", "padded"]
