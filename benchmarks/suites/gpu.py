"""Training and decoding at the shapes of Llama-3.2-1B and Llama-3-8B: random weights, bfloat16, on a CUDA device. All
methods share one base model, except full fine-tuning. "Compiled" is torch.compile with full graphs; decoding then uses
a static cache and CUDA graphs. The peak is the memory of the first two steps, without the weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

from actshift.sites.blocks import unwrap
from benchmarks.figure import Figure, Note
from benchmarks.memory import peak_bytes
from benchmarks.methods import METHODS, OURS
from benchmarks.models import Shape
from benchmarks.plain import BASE, FLOOR, FULL, LORA, floor, training_step
from benchmarks.suites.generation import Greedy, speeds, twin
from benchmarks.suites.training import OVER_FLOOR, sizes
from benchmarks.timing import Case, interleaved, milliseconds, ratios

COMPILED, LORA_COMPILED = f"{OURS}, compiled", f"{LORA}, compiled"


@dataclass(frozen=True)
class Llama(Shape):
    """The shape of a Llama 3 model, its device and its batch."""

    title: str = ""
    inner: int = 0
    heads: int = 32
    tied: bool = False
    device: str = "cuda"

    def __str__(self) -> str:
        return f"{self.title}, {self.batch} × {self.seq} tokens"

    def model(self) -> LlamaForCausalLM:
        """Return the model in evaluation mode, with the same weights in every call."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads // 4,
            tie_word_embeddings=self.tied,
            max_position_embeddings=8192,
        )
        with torch.device(self.device):
            return LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()

    @cached_property
    def ids(self) -> Tensor:
        """The token ids of the batch, `[batch, seq]`."""
        return super().ids.to(self.device)


ONE = Llama(2048, 16, batch=8, seq=1024, vocabulary=128256, title="Llama-3.2-1B", inner=8192, tied=True)
EIGHT = Llama(4096, 32, batch=4, seq=1024, vocabulary=128256, title="Llama-3-8B", inner=14336)
TINY = Llama(64, 2, batch=2, seq=16, vocabulary=256, title="a tiny Llama", inner=128, heads=4)


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure training steps, their peak memory, and decoding at batch 1 and 16. Needs a CUDA device."""
    if not torch.cuda.is_available():
        yield Note("Not measured: this machine has no CUDA device.")
        return
    rounds, tokens = (2, 4) if quick else (10, 64)
    for shape in (TINY,) if quick else (ONE, EIGHT):
        parts = {"Training": training(shape, rounds), "Full fine-tuning": full(shape, rounds)}
        parts |= {f"Decoding at batch {n}": decoding(shape.with_(batch=n, seq=128), tokens) for n in (1, 16)}
        for name, part in parts.items():
            try:
                yield from part
            except torch.OutOfMemoryError:
                yield Note(f"{name} does not fit on this device: {shape}.")


def training(shape: Llama, rounds: int) -> Iterator[Figure]:
    """Yield the step time and peak memory of each method that keeps the base model frozen."""
    base = shape.model().requires_grad_(False)
    cases: dict[str, Case] = {FLOOR: training_step(floor(twin(base)), shape)}
    for name, method in {LORA: plain, LORA_COMPILED: compiled, OURS: plain, COMPILED: compiled}.items():
        model = METHODS[name.removesuffix(", compiled")](twin(base))
        cases[name] = training_step(method(model, shape), shape)
    yield from timed(cases, rounds, str(shape))


def full(shape: Llama, rounds: int) -> Iterator[Figure]:
    """Yield the step time and peak memory of full fine-tuning, and of the floor for comparison."""
    cases = {
        name: training_step(method(shape.model()), shape) for name, method in ((FLOOR, floor), (FULL, METHODS[FULL]))
    }
    yield from timed(cases, rounds, f"{shape}, full fine-tuning")


def timed(cases: Mapping[str, Case], rounds: int, where: str) -> Iterator[Figure]:
    """Yield peak memory, measured during the first steps, then step times."""
    yield from sizes({name: peak_bytes(step) for name, step in cases.items()}, "peak", where)
    samples = interleaved(cases, rounds, clock=clock)
    yield from milliseconds(samples, "step", where)
    yield from ratios(samples, FLOOR, OVER_FLOOR, where)


@torch.no_grad()
def decoding(shape: Llama, tokens: int) -> Iterator[Figure]:
    """Yield the time per decoded token of each method over the base model, first eager, then compiled."""
    base = shape.model().requires_grad_(False)
    models = {BASE: base} | {name: METHODS[name](twin(base)).eval() for name in (LORA, OURS)}
    where = f"batch {shape.batch}, {shape.title}, {shape.seq} prompt tokens"
    rows = {name: Greedy(model, shape.ids) for name, model in models.items()}
    for row in rows.values():
        row.prefill()
    samples = interleaved({name: row.step for name, row in rows.items()}, tokens, clock=clock)
    yield from ratios(samples, BASE, "decode over the base", where)
    yield from speeds(samples, shape, where)
    torch.compiler.reset()
    static = {name: StaticGreedy(model, shape, tokens).step for name, model in models.items()}
    samples = interleaved(static, tokens, clock=clock)
    yield from ratios(samples, BASE, "decode over the base, compiled", f"{where}, compiled")
    yield from speeds(samples, shape, f"{where}, compiled")


class StaticGreedy:
    """Greedy decoding of one token per step, compiled as one full graph, with a static cache."""

    def __init__(self, model: Any, shape: Llama, tokens: int) -> None:
        self.model: Any = unwrap(model)
        self.position = torch.tensor([[shape.seq]], device=shape.device)
        self.cache = StaticCache(self.model.config, max_cache_len=shape.seq + tokens + 8)
        self.next_tokens = self._argmax(self.model(input_ids=shape.ids, past_key_values=self.cache, logits_to_keep=1))
        self.compiled = torch.compile(self.model, fullgraph=True, **compile_options(shape, mode="reduce-overhead"))

    def step(self) -> None:
        """Decode one more token for each row of the batch."""
        torch.compiler.cudagraph_mark_step_begin()
        output = self.compiled(input_ids=self.next_tokens, past_key_values=self.cache, position_ids=self.position)
        self.next_tokens = self._argmax(output)
        self.position = self.position + 1

    def _argmax(self, output: Any) -> Tensor:
        return output.logits[:, -1:].argmax(-1)


def plain(model: nn.Module, shape: Llama) -> nn.Module:
    """Return the model unchanged."""
    return model


def compiled(model: nn.Module, shape: Llama) -> nn.Module:
    """Compile the model inside the PEFT wrapper, and return the wrapper."""
    unwrap(model).compile(fullgraph=True, **compile_options(shape))
    return model


def compile_options(shape: Llama, **options: str) -> dict[str, str]:
    """Return the options of torch.compile. On the CPU (in tests) no kernels are compiled."""
    return options if shape.device == "cuda" else {"backend": "aot_eager"}


def clock() -> float:
    """Return the time in seconds after all work queued on the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
