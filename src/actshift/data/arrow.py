"""Read rows from Arrow and store them in it without loss. Import this module only with `datasets` at hand."""

import atexit
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Json, List, Value
from datasets.features.features import register_feature
from pyarrow.parquet import ParquetFile

from actshift.data.json_text import parse_json
from actshift.errors import ActshiftError, first_repeated

_BATCH = 1_000  # rows
_MEMORY = 64 * 2**20  # bytes of rows that are kept in memory; beyond it they are in a temporary file


@dataclass
class ExactJson(Json):
    """A column of nested values, such as chat messages. Arrow would add the keys of all objects to each of them.

    Values are restored exactly. `datasets.Json` changes -0.0 and integers above 64 bits.
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
    warnings.simplefilter("ignore")  # `register_feature` is experimental
    register_feature(ExactJson, "ExactJson")


def to_dataset(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[str], nested: Sequence[str] = (), lists: Sequence[str] = ()
) -> Dataset:
    """Return rows as a dataset of texts. It is in memory, or if it is large in a temporary file, until Python ends.

    Args:
        columns: the columns of the dataset. A value that a row lacks is None.
        nested: those columns whose values may have any form that JSON has. A text is taken as JSON text.
        lists: those columns whose values are lists of texts.

    >>> to_dataset([{"m": [{"a": 1}]}, {"m": [{"b": None}]}], ["m"], nested=["m"])[1]
    {'m': [{'b': None}]}
    """
    texts: dict[str, Any] = {name: List(Value("string")) if name in lists else Value("string") for name in columns}
    features = Features(texts | {name: ExactJson() for name in nested})
    schema, encode = features.arrow_schema, ExactJson().encode_example
    batches: list[pa.RecordBatch] = []
    writer, path = None, Path()
    remaining = iter(rows)
    while chunk := list(islice(remaining, _BATCH)):
        values = {name: [row.get(name) for row in chunk] for name in columns}
        for name in nested:
            values[name] = [value if isinstance(value, str) else encode(value) for value in values[name]]
        arrays = [pa.array(values[item.name], item.type) for item in schema]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        if writer is None and sum(batch.nbytes for batch in batches) > _MEMORY:
            path = Path(_temporary_folder(), "rows.arrow")
            writer = pa.ipc.new_stream(path, schema)
        if writer is not None:
            writer.write_table(pa.Table.from_batches(batches, schema))
            batches.clear()
    if writer is None:
        return Dataset(pa.Table.from_batches(batches, schema), DatasetInfo(features=features))
    writer.close()
    return Dataset.from_file(str(path))


def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="actshift-rows-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def read_parquet(path: Path) -> Generator[Mapping[str, Any], None, None]:
    """Yield the rows of a Parquet file as `arrow_rows` does. Raise ActshiftError if it is damaged."""
    try:
        file = ParquetFile(path)
        if repeated := first_repeated(file.schema_arrow.names):
            raise ActshiftError(f"{path} has the column {repeated!r} twice; rename one of them.")
        yield from arrow_rows(file.iter_batches(_BATCH))
    except ActshiftError:
        raise
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        raise ActshiftError(f"{path} cannot be read: it is no Parquet file, or is damaged.") from error


def arrow_rows(batches: Iterable[Any]) -> Generator[Mapping[str, Any], None, None]:
    """Yield the rows of Arrow tables or batches as Python values.

    Arrow adds the keys of all objects in a list to each of them, with null. Keys with null are therefore removed from
    such objects, as by TRL's `remove_none_values`, except `content`. JSON columns of `datasets` are decoded.
    """
    for batch in batches:
        columns: list[list[Any]] = []
        for item, column in zip(batch.schema, batch.columns, strict=True):
            convert = _converter(item.type, drop=item.name == "chat_template_kwargs")
            columns.append([convert(value) for value in column.to_pylist()])
        for values in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, values, strict=True))


def _converter(kind: Any, drop: bool) -> Callable[[Any], Any]:
    """Return a function for values of an Arrow type; `drop` leaves out the keys of an object that have null."""
    types = pa.types
    if getattr(kind, "extension_name", "") == "arrow.json":
        return lambda text: text and parse_json(text)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = _converter(kind.value_type, drop=True)
        return lambda values: values and [item(value) for value in values]
    if types.is_map(kind):
        convert = _converter(kind.item_type, drop)
        return lambda pairs: None if pairs is None else {key: convert(value) for key, value in pairs}
    if types.is_struct(kind):
        fields = {field.name: _converter(field.type, drop) for field in kind}
        return lambda values: (
            values
            and {
                name: fields[name](value)
                for name, value in values.items()
                if not drop or value is not None or name == "content"
            }
        )
    return lambda value: value


@dataclass(frozen=True)
class DatasetRows:
    """The rows of a dataset, read as `arrow_rows` does at every iteration."""

    dataset: Dataset

    def __iter__(self) -> Generator[Mapping[str, Any], None, None]:
        """Yield the rows."""
        return arrow_rows(self.dataset.with_format("arrow").iter(_BATCH))
