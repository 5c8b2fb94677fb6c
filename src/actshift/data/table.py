"""Store rows in Arrow without loss. This module imports `datasets`, so import it only to create a dataset."""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Json
from datasets.features.features import register_feature

_BATCH = 1_000  # rows per record batch


@dataclass
class ExactJson(Json):
    """A column of nested values, such as chat messages. Arrow would give each object the keys of all the others.

    Values come back as they were, unlike those of `datasets.Json`, which changes -0.0 and integers above 64 bits.
    """

    _type: str = field(default="ExactJson", init=False, repr=False)

    def encode_example(self, example_data: Any) -> str | None:
        """Return a value as JSON text; None stays a missing value."""
        return None if example_data is None else json.dumps(example_data, ensure_ascii=False)

    def decode_example(self, example_data: str | None, token_per_repo_id: Any = None) -> Any:
        """Return the value of a JSON text. A batched `Dataset.map` encodes numbers above 64 bits twice."""
        value = None if example_data is None else json.loads(example_data)
        return json.loads(value) if isinstance(value, str) else value


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the function says that it is experimental
    register_feature(ExactJson, "ExactJson")


def to_dataset(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], nested: Sequence[str]) -> Dataset:
    """Return rows as a dataset with these columns. Values of `nested` columns may have any form that JSON has.

    >>> to_dataset([{"m": [{"a": 1}]}, {"m": [{"b": None}]}], ["m"], nested=["m"])[1]
    {'m': [{'b': None}]}
    """
    encode, rows, tables = ExactJson().encode_example, iter(rows), []
    while batch := list(islice(rows, _BATCH)):
        values = {name: [row.get(name) for row in batch] for name in columns}
        values |= {name: list(map(encode, values[name])) for name in nested}
        tables.append(pa.table(values))
    table = pa.concat_tables(tables, promote_options="permissive")
    found = Features.from_arrow_schema(table.schema)
    features = Features({name: ExactJson() if name in nested else found[name] for name in columns})
    return Dataset(table.cast(features.arrow_schema), DatasetInfo(features=features))
