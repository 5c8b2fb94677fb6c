"""An adapter's size on disk, the times to load and to switch it, and its memory among many others. The size is the
folder written by `save_pretrained`. Memory is the growth of a fresh process (RSS) over the bytes of the attached
tensors. The times of the first and the last attachments are medians of ten."""

from __future__ import annotations

import ctypes
import gc
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import psutil
import torch
from peft import PeftConfig, PeftModel, get_peft_model

from actshift import SteeringConfig
from benchmarks.figure import Figure, Note
from benchmarks.methods import JOINT, OURS, joint_config
from benchmarks.models import MIDDLE, SMALL, TINY, Shape
from benchmarks.plain import LORA, RANK, lora_config
from benchmarks.timing import interleaved, milliseconds

CONFIGS: dict[str, Callable[[], PeftConfig]] = {
    OURS: lambda: SteeringConfig(rank=RANK),
    LORA: lora_config,
    JOINT: joint_config,
}
ENDS = 10


def measure(quick: bool) -> Iterator[Figure | Note]:
    """Measure folders, loading and switching, then many adapters on one model."""
    numbers = ((OURS, 12), (LORA, 12)) if quick else ((OURS, 1000), (OURS, 100), (LORA, 100))
    for shape in (TINY,) if quick else (SMALL, MIDDLE.with_(layers=12)):
        where = f"d {shape.width}, {shape.layers} layers"
        yield from folders(shape, where, rounds=2 if quick else 15)
        for kind, number in numbers:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                results = fresh.submit(many, shape, kind, number, torch.get_num_threads()).result()
            case = f"{number:,} adapters {'' if kind == OURS else 'of '}{kind.removeprefix('post-block ')}"
            for (name, unit), value in results.items():
                yield Figure(name, case, where, value, unit=unit)


def folders(shape: Shape, where: str, rounds: int) -> Iterator[Figure]:
    """Yield the folder size of each kind, and the times to load it and to switch between two adapters."""
    loads, switches = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind, config in CONFIGS.items():
            model, folder = get_peft_model(shape.model(), config(), adapter_name="first"), Path(temporary, kind)
            model.save_pretrained(str(folder))
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            yield Figure("size on disk", kind, where, size / 1024, unit="KiB")
            model.load_adapter(str(folder / "first"), adapter_name="second")
            loads[kind], switches[kind] = loading(model, folder / "first"), switching(model, ("first", "second"))
        yield from milliseconds(interleaved(switches, 2 * rounds), "switch", where)
        yield from milliseconds(interleaved(loads, rounds), "load", where)


def loading(model: PeftModel, folder: Path) -> Callable[[], object]:
    """Return a function that loads the folder, under a new name in each call."""
    return lambda: model.load_adapter(str(folder), adapter_name=f"loaded{len(model.peft_config)}")


def switching(model: PeftModel, names: tuple[str, ...]) -> Callable[[], object]:
    """Return a function that activates the next of the names in each call."""
    turn = cycle(names)
    return lambda: model.set_adapter(next(turn))


def many(shape: Shape, kind: str, number: int, threads: int) -> dict[tuple[str, str], float]:
    """Attach `number` adapters to one model, and return the costs by name and unit. Run it in a fresh process."""
    torch.set_num_threads(threads)
    model = get_peft_model(shape.model(), CONFIGS[kind](), adapter_name="a0")
    model.add_adapter("a1", CONFIGS[kind]())
    before, seconds = resident(), []
    for index in range(2, number):
        start = time.perf_counter()
        model.add_adapter(f"a{index}", CONFIGS[kind]())
        seconds.append(time.perf_counter() - start)
    growth = resident() - before
    own = sum(tensor.nbytes for name, tensor in model.named_parameters() if ".a0." in name) * len(seconds)
    switch = interleaved({"switch": switching(model, ("a1", f"a{number - 1}"))}, rounds=30)["switch"]
    return {
        ("attach all", "s"): sum(seconds),
        ("attach the first", "ms"): 1000 * median(seconds[:ENDS]),
        ("attach the last", "ms"): 1000 * median(seconds[-ENDS:]),
        ("memory over own bytes", "×"): growth / own,
        ("switch", "ms"): 1000 * median(switch),
    }


def resident() -> int:
    """Return the resident bytes of this process, after returning freed memory if the C library supports it."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return psutil.Process().memory_info().rss
