"""Run the demo: teach the bundled model a new form of answer by steering and by full fine-tuning."""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from actshift import LowRank, SteeringConfig, Vector, attach, load_adapter
from actshift.demo import METHODS, check_methods, load_base
from actshift.demo.task import make_rows
from actshift.evaluation import EvalReport, evaluate
from actshift.files import atomic_folder
from actshift.training import TrainSettings, fit

STEPS, BATCH, TEST_ROWS = 600, 32, 2000
MAX_NEW_TOKENS = 12
SHOWN_EXAMPLES = 3

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class MethodResult:
    """The result of one method; accuracies are shares of the test rows (0 to 1), and `size` is in bytes on disk."""

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
    """A test prompt with its reference answer and the answers before and after training."""

    prompt: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True)
class DemoReport:
    """The figures of one run of the demo."""

    seed: int
    steps: int
    test_rows: int
    base_accuracy: float
    rows: tuple[MethodResult, ...]
    examples: tuple[Example, ...]
    adapter: str | None
    reloaded_accuracy: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def run_demo(
    methods: Sequence[str], out: Path, seed: int = 0, steps: int = STEPS, say: Callable[[str], None] = lambda line: None
) -> DemoReport:
    """Adapt the bundled model by each method, and score all of them on the same unseen rows.

    Each method takes `steps` steps of 32 rows from the same base model. The first steering adapter is loaded into a
    fresh model and scored again.

    Args:
        out: new folder; each steering adapter is saved in a folder inside it.
        say: called with a message before each part of the run.

    Raises:
        ActshiftError: if a method is unknown, or if `out` is not empty.
    """
    check_methods(methods)
    with one_thread(), atomic_folder(out) as folder:
        start = time.perf_counter()
        train, test = Dataset.from_list(make_rows("train", steps * BATCH, seed)), make_rows("test", TEST_ROWS)
        say(f"The untouched base model answers {TEST_ROWS:,} questions in a form that it has never seen.")
        before = _score(*load_base(), test)
        results: dict[str, tuple[MethodResult, EvalReport]] = {}
        for name in methods:
            say(f"{METHODS[name].label}: {steps} steps of {BATCH} rows, then the same questions.")
            results[name] = _adapt(name, train, test, before.accuracy, seed, steps, folder / name)
        shown = next((name for name in methods if METHODS[name].site), methods[0])
        adapter = reloaded = None
        if METHODS[shown].site:
            adapter = str(out / shown)
            say("The saved adapter is loaded into a fresh copy of the base model.")
            model, tokenizer = load_base()
            reloaded = _score(load_adapter(model, str(folder / shown)).eval(), tokenizer, test).accuracy
    rows, examples = tuple(row for row, _ in results.values()), _examples(before, results[shown][1])
    seconds = time.perf_counter() - start
    return DemoReport(seed, steps, TEST_ROWS, before.accuracy, rows, examples, adapter, reloaded, seconds)


@contextmanager
def one_thread() -> Generator[None]:
    """Compute on one thread, which is fast enough here, so that results do not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _adapt(
    name: str, train: Dataset, test: Rows, base_accuracy: float, seed: int, steps: int, folder: Path
) -> tuple[MethodResult, EvalReport]:
    method = METHODS[name]
    model, tokenizer = load_base()
    torch.manual_seed(seed)  # initialises the adapter
    adapter = Vector() if method.vector else LowRank(rank=8)
    config = SteeringConfig(adapter=adapter, site=method.site or "post_block", task_type="CAUSAL_LM")
    adapted = attach(model, config) if method.site else model
    settings = TrainSettings(
        learning_rate=method.learning_rate, max_steps=steps, batch_size=BATCH, gradient_accumulation=1, seed=seed
    )
    fitted = fit(adapted, tokenizer, train, settings, title=method.label)
    report = _score(adapted, tokenizer, test)
    size = sum(parameter.nbytes for parameter in model.parameters())
    if method.site:
        adapted.save_pretrained(str(folder), save_embedding_layers=False)
        size = (folder / "adapter_model.safetensors").stat().st_size
    training = (fitted.trainable, fitted.share, base_accuracy, report.accuracy, fitted.seconds)
    return MethodResult(name, method.label, *training, size), report


def _score(model: Any, tokenizer: Any, test: Rows) -> EvalReport:
    return evaluate(model, tokenizer, test, MAX_NEW_TOKENS, batch_size=250)


def _examples(before: EvalReport, after: EvalReport) -> tuple[Example, ...]:
    """Return examples with prompts of different lengths, which look less alike."""
    pairs = zip(before.predictions, after.predictions, strict=True)
    by_length = {len(old.prompt.split()): (old, new) for old, new in pairs}
    candidates = [by_length[length] for length in sorted(by_length)]
    spread = candidates[:: max(1, len(candidates) // SHOWN_EXAMPLES)][:SHOWN_EXAMPLES]
    return tuple(Example(old.prompt, old.reference, old.prediction, new.prediction) for old, new in spread)
