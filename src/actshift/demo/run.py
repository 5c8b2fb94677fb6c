"""The demo: teach the bundled model a form it has never seen, by steering and by full fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from actshift import LowRank, SteeringConfig, Vector, attach, load_adapter
from actshift.demo import load_base
from actshift.demo.methods import METHODS, DemoMethod, check_methods
from actshift.demo.task import make_rows
from actshift.evaluation import EvalReport, evaluate
from actshift.files import check_new_folder
from actshift.training import TrainSettings, fit

STEPS, BATCH = 600, 32
TEST_ROWS = 2000
MAX_NEW_TOKENS = 12
SHOWN = 3


@dataclass(frozen=True)
class Row:
    """One method's line of the table: accuracies are shares of the test rows, 0 to 1; sizes are bytes on disk."""

    method: str
    label: str
    trainable: int
    trainable_share: float
    base_accuracy: float
    accuracy: float
    seconds: float
    size: int


@dataclass(frozen=True)
class Example:
    """One test prompt, its right answer, and the answers before and after."""

    prompt: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True)
class DemoReport:
    """What one run of the demo found; every figure comes from that run."""

    seed: int
    steps: int
    test_rows: int
    base_accuracy: float
    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    adapter: str | None
    reloaded_accuracy: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, ready for JSON."""
        return asdict(self)


def run_demo(
    methods: Sequence[str],
    out: Path,
    seed: int = 0,
    steps: int = STEPS,
    say: Callable[[str], None] = lambda line: None,
) -> DemoReport:
    """Adapt the bundled model by each of the `methods`, and score every one on the same unseen rows.

    Each takes `steps` steps of 32 rows from the same base. A steering adapter is saved in a folder below `out`;
    the first one is loaded into a fresh model and scored again. `say` is told what comes next.

    Raises ActshiftError for an unknown method, and for an `out` that holds anything already.
    """
    check_methods(methods)
    check_new_folder(out)
    with one_thread():
        return _run(methods, out, seed, steps, say)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: matrices this small gain little from two, which wait for each other on a busy machine.

    It also makes a run repeat to the bit on machines with other numbers of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(methods: Sequence[str], out: Path, seed: int, steps: int, say: Callable[[str], None]) -> DemoReport:
    start = time.perf_counter()
    train, test = Dataset.from_list(make_rows("train", steps * BATCH, seed)), make_rows("test", TEST_ROWS)
    say(f"The untouched base model answers {TEST_ROWS:,} questions in a form it has never seen.")
    before = _score(*load_base(), test)
    adapted: dict[str, tuple[Row, EvalReport]] = {}
    for name in methods:
        say(f"{METHODS[name].label}: {steps} steps of {BATCH} rows, then the same questions.")
        adapted[name] = _adapt(name, train, test, before.accuracy, seed, steps, out / name)
    shown = next((name for name in methods if METHODS[name].site), methods[0])
    folder = out / shown if METHODS[shown].site else None
    reloaded = None
    if folder is not None:
        say("The saved adapter, loaded into a fresh copy of the base model.")
        model, tokenizer = load_base()
        reloaded = _score(load_adapter(model, str(folder)).eval(), tokenizer, test).accuracy
    return DemoReport(
        seed=seed,
        steps=steps,
        test_rows=TEST_ROWS,
        base_accuracy=before.accuracy,
        rows=tuple(row for row, _ in adapted.values()),
        examples=_examples(before, adapted[shown][1]),
        adapter=str(folder) if folder else None,
        reloaded_accuracy=reloaded,
        seconds=time.perf_counter() - start,
    )


def _adapt(
    name: str, train: Dataset, test: list[dict[str, str]], before: float, seed: int, steps: int, folder: Path
) -> tuple[Row, EvalReport]:
    method = METHODS[name]
    model, tokenizer = load_base()
    torch.manual_seed(seed)  # the adapter's first weights
    adapted = attach(model, _config(method)) if method.site else model
    settings = TrainSettings(
        learning_rate=method.learning_rate,
        max_steps=steps,
        batch_size=BATCH,
        gradient_accumulation=1,
        seed=seed,
    )
    fitted = fit(adapted, tokenizer, train, settings, title=method.label)
    report = _score(adapted, tokenizer, test)
    if method.site:
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
        size = (folder / "adapter_model.safetensors").stat().st_size
    else:
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    row = Row(
        method=name,
        label=method.label,
        trainable=fitted.trainable,
        trainable_share=fitted.share,
        base_accuracy=before,
        accuracy=report.accuracy,
        seconds=fitted.seconds,
        size=size,
    )
    return row, report


def _config(method: DemoMethod) -> SteeringConfig:
    adapter = Vector() if method.vector else LowRank(rank=8)
    return SteeringConfig(adapter=adapter, site=method.site or "post_block", task_type="CAUSAL_LM")


def _score(model: Any, tokenizer: Any, test: list[dict[str, str]]) -> EvalReport:
    return evaluate(model, tokenizer, test, MAX_NEW_TOKENS, batch_size=250)


def _examples(before: EvalReport, after: EvalReport) -> tuple[Example, ...]:
    """The first prompts of different length, so that they do not look alike."""
    pairs = {
        len(one.prompt.split()): (one, two) for one, two in zip(before.predictions, after.predictions, strict=True)
    }
    chosen = [pairs[length] for length in sorted(pairs)]
    spread = chosen[:: max(1, len(chosen) // SHOWN)][:SHOWN]
    return tuple(Example(one.prompt, one.reference, one.prediction, two.prediction) for one, two in spread)
