"""A checked comparison: its settings, methods and rows, and the results in its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from actshift.compare.cell import BASE_CELL, Cell, CellJob, Record
from actshift.compare.methods import EQUAL, Method, check_common, select_methods
from actshift.compare.protocol import FIRST_SEED, SweepState
from actshift.compare.settings import CompareSettings
from actshift.compare.splits import Splits, cut_names, read_splits
from actshift.errors import ActshiftError
from actshift.files import write_atomically
from actshift.tasks import get_task
from actshift.training import TrainSettings
from actshift.training.configs import AdapterSpec
from actshift.training.data import Inputs, choose_head, explicit_objective, infer_objective
from actshift.training.record import as_json, check_fingerprints, differing, fingerprints
from actshift.training.run_folder import RunFolder, read_json
from actshift.training.settings import check_code

FAILURE = "failed.json"


@dataclass(frozen=True)
class Comparison:
    """A checked comparison. All methods share `common`; `out` has the rows, a folder for each cell, and the table."""

    settings: CompareSettings
    methods: tuple[Method, ...]
    common: Mapping[str, Any]
    splits: Splits
    out: Path

    @classmethod
    def from_settings(cls, settings: CompareSettings) -> Comparison:
        """Read the rows; raise ActshiftError if something is missing or invalid. Loads no model and writes nothing."""
        out, selection = Path(settings.required("out")), select_methods(settings.methods)
        check_common(settings.common, "On the command line")
        owners = {f"The method {method.name}": method.settings for method in selection.methods}
        for owner, values in {"The section common": selection.common, **owners}.items():
            check_code(owner, values, settings.common)
        task = get_task(settings.task).settings if settings.task else {}
        base = {"model": settings.required("model"), "revision": settings.revision}
        common = {**task, **selection.common, **settings.common, **base}
        for method in selection.methods:
            AdapterSpec.from_settings(method.cell_settings(method.rates[0], FIRST_SEED, **common))
        return cls(settings, selection.methods, common, read_splits(settings, common), out)

    @property
    def rows(self) -> Path:
        """Folder of the splits."""
        return self.out / "rows"

    @property
    def protocol(self) -> dict[str, Any]:
        """Everything that the methods have in common, as JSON values."""
        common, settings, splits = TrainSettings(**self.common), self.settings, self.splits
        base = {"model": settings.model, **({"revision": settings.revision} if settings.revision else {})}
        what = {**base, "task": settings.task, "scorer": self.scorer}
        equal = {name: getattr(common, name) for name in EQUAL}
        size = {"seeds": settings.seeds, "max_new_tokens": settings.new_tokens}
        rows = {"rows": splits.sizes, "shared_rows": splits.shared, "digests": splits.digests}
        return {**what, **equal, **size, **rows, "cut_from_data": cut_names(settings)}

    @property
    def scorer(self) -> str | None:
        """Name of the scorer of completions, or None for a classifier."""
        from actshift.evaluation.report import EXACT_MATCH

        return None if self.inputs.head.classifies else self.settings.scorer_name or EXACT_MATCH

    @cached_property
    def inputs(self) -> Inputs:
        """The rows of every training, and the model head that they need."""
        settings = TrainSettings.from_mapping({**self.common, "task": self.settings.task})
        rows = self.splits.dataset("train")
        objective = explicit_objective(settings) or infer_objective(rows)
        return Inputs(objective, rows, self.splits.dataset("validation"), choose_head(settings, objective, rows))

    def check_prompts(self) -> None:
        """Raise ActshiftError if a prompt to be scored leaves no room for a completion in the model's context."""
        from actshift.data import is_chat, to_prompt_completion
        from actshift.evaluation.evaluate import completion_limit
        from actshift.evaluation.prompts import encode_prompts
        from actshift.loading import load_config, load_tokenizer

        if self.inputs.head.task_type != "CAUSAL_LM":
            return
        base = self.settings.required("model"), TrainSettings(**self.common).trust_remote_code, self.settings.revision
        config, tokenizer = load_config(*base), load_tokenizer(*base)
        for name in ("validation", "test"):
            rows = self.splits.dataset(name)
            rendered = is_chat(rows)
            rows = to_prompt_completion(rows, tokenizer)
            limit = self.settings.new_tokens or completion_limit(tokenizer, cast("Iterable[Any]", rows))
            try:
                encode_prompts(config, tokenizer, rows["prompt"], limit, add_special_tokens=not rendered)
            except ActshiftError as error:
                raise ActshiftError(f"In the {name} rows: {error}") from None

    def load_state(self) -> SweepState:
        """Return the state in the output folder, or raise ActshiftError if its cells have other settings or rows.

        A failure counts only if its method has met the test rows without the cell; other failed cells run again.
        """
        state = SweepState(self.methods, self.settings.seeds)
        for cell in state.all_cells():
            run = RunFolder(self._weights(cell))
            if record := Record.read(cell.folder(self.out)):
                self._check_same(cell, record)
                state.records[cell] = record
            elif run.unfinished:
                run.check(self._cell_settings(cell), resume=True)
        for method in state.methods:
            for cell in state.sweep_cells(method) if state.tested_cells(method) else []:
                failure = cell.folder(self.out) / FAILURE
                if cell not in state.records and failure.is_file():
                    state.failed[cell] = read_json(failure)["error"]
        return state

    def job(self, cell: Cell, test: bool) -> CellJob:
        """Return the job that trains and scores a cell, with `test` also on the test rows."""
        return CellJob(
            folder=str(cell.folder(self.out)),
            settings=self._cell_settings(cell),
            trains=cell != BASE_CELL,
            test=str(self.rows / "test.jsonl") if test else None,
            max_new_tokens=self.settings.new_tokens,
            scorer=self.settings.scorer_name,
            eval_batch_size=self.settings.eval_batch_size,
            made_with=self._made_with(cell),
            one_thread=self.settings.jobs > 1,
        )

    def collect(self, cell: Cell, error: str | None, state: SweepState) -> None:
        """Add the result of a cell that just ended to `state`, and write a failure to the cell's folder."""
        folder = cell.folder(self.out)
        if record := Record.read(folder):
            state.records[cell] = record
        elif error is None:
            error = "it left no record"
        if error is None:
            (folder / FAILURE).unlink(missing_ok=True)
        else:
            state.failed[cell] = error
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / FAILURE, json.dumps({"error": error}) + "\n")

    def drop_weights(self, state: SweepState) -> None:
        """Remove the weights of beaten cells and, unless `keep_weights`, of full models that are scored."""
        for method in self.methods:
            keep = self.settings.keep_weights or method.settings.get("method") != "full"
            for cell in [*state.beaten_cells(method), *([] if keep else state.tested_cells(method))]:
                shutil.rmtree(self._weights(cell), ignore_errors=True)

    def _weights(self, cell: Cell) -> Path:
        """Return the output folder of a cell's training."""
        return cell.folder(self.out) / "weights"

    def _cell_settings(self, cell: Cell) -> TrainSettings:
        """Return the training settings of a cell; the base model only uses them for loading."""
        rows = {"data": str(self.rows / "train.jsonl"), "eval_data": str(self.rows / "validation.jsonl")}
        common: dict[str, Any] = {**self.common, **rows, "out": str(self._weights(cell))}
        method = self._method(cell)
        return method.cell_settings(cell.rate, cell.seed, **common) if method else TrainSettings(**common)

    def _method(self, cell: Cell) -> Method | None:
        return next((method for method in self.methods if method.name == cell.method), None)

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, Any]]:
        """Fingerprints of the files of each method, which are the same for all of its cells."""
        cells = {BASE_CELL.method: BASE_CELL, **{m.name: Cell(m.name, m.rates[0], FIRST_SEED) for m in self.methods}}
        return {name: fingerprints(self._cell_settings(cell)) for name, cell in cells.items()}

    def _made_with(self, cell: Cell) -> dict[str, Any]:
        """Return everything that decides the result of a cell."""
        method, settings = self._method(cell), self.settings
        rates, scorer, rows = method.rates if method else [], self.scorer, self.splits.digests
        more: dict[str, Any] = {"max_new_tokens": settings.new_tokens, "scorer": scorer, "rows": rows, "rates": rates}
        more["fingerprints"] = self._fingerprints[cell.method]
        return _without_paths(self._cell_settings(cell)) | json.loads(json.dumps(more))

    def _check_same(self, cell: Cell, record: Record) -> None:
        now = self._made_with(cell)
        for name, old, new in differing(record.made_with, now):
            problem = f"{cell.folder(self.out)} was made with {name} {old!r}, not {new!r}."
            raise ActshiftError(f"{problem} Compare with the same settings, or give another --out.")
        check_fingerprints(record.made_with.get("fingerprints"), now["fingerprints"], f"{self.out} was made")


def _without_paths(settings: TrainSettings) -> dict[str, Any]:
    """Return settings as JSON values, without the local paths."""
    return {name: value for name, value in as_json(settings).items() if name not in ("data", "out", "eval_data")}
