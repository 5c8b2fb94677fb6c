"""Turn checked rows into token ids and labels, the way a model will meet them, and these into batches."""

from actshift.encoding.batch import padded
from actshift.encoding.classes import class_names, encode_texts, label_index
from actshift.encoding.encode import encode
from actshift.encoding.encoded import IGNORED, Encoded, Example, short_enough
from actshift.encoding.pairs import SCALE, partner_loss, sides, unit_means
from actshift.encoding.tags import encode_words

__all__ = [
    "IGNORED", "SCALE", "Encoded", "Example",
    "class_names", "encode", "encode_texts", "encode_words", "label_index", "padded",
    "partner_loss", "short_enough", "sides", "unit_means",
]  # fmt: skip
