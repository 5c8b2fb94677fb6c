"""Reports with figures that were made up, so that a test can say what must be advised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from actshift.analysis.equivalence import EquivalenceReport, LayerEquivalence, Remainder
from actshift.analysis.extract import LayerOracle, OracleReport
from actshift.analysis.locate import LocateReport, SiteGain
from actshift.analysis.redundancy import BlockRedundancy, Overlap, Redundancy
from actshift.analysis.report import Findings, Report

SCALES = (0.01, 0.1, 1.0)


def place(site: str, layer: int, gain: float, weight: bool = False, noise: float = 0.01) -> SiteGain:
    """A place of width 10 whose first direction holds nearly all, with the noise of two groups of batches."""
    values = (gain, gain / 10)
    spread = tuple(tuple(value * (1 + sign * noise) for value in values) for sign in (-1, 1))
    mean = () if weight else (gain / 5, gain / 5)
    return SiteGain(site, layer, site, 10, 10, weight, False, values, None if weight else gain / 5, spread, mean)


def located(steering: float = 3.0, lora: float = 1.0, groups: int = 2, noise: float = 0.01) -> LocateReport:
    """Two blocks, the second with twice the gain of the first, at two sites and one map."""
    places = [place("post_block", layer, (layer + 1) * steering, noise=noise) for layer in (0, 1)]
    places += [place("post_mlp", layer, (layer + 1) * steering / 4, noise=noise) for layer in (0, 1)]
    places += [place("mlp.down_proj", layer, (layer + 1) * lora, True, -noise) for layer in (0, 1)]
    if groups == 1:
        places = [replace(one, singular_values_without=(), mean_without=()) for one in places]
    return LocateReport("models/tiny", 1000, 2, 2.5, 80, 8, groups, tuple(places))


def remainder(full: float) -> Remainder:
    """A miss that falls with the square of the scale, and is `full` of the shift at full size."""
    return Remainder(SCALES, SCALES, SCALES, tuple(full * scale**2 for scale in SCALES), 0.1)


def updated(
    skips: tuple[float | None, ...] = (0.3, 0.7), misses: tuple[float, float] = (0.05, 0.2), block=0.9, mlp=0.6
) -> EquivalenceReport:
    layers = tuple(
        LayerEquivalence(
            layer, skip, remainder(miss / 2), remainder(miss), None, 1.0, 2.0, {0: 0.1, 2: mlp}, {0: 0.1, 2: block}
        )
        for layer, (skip, miss) in enumerate(zip(skips, misses, strict=True))
    )
    return EquivalenceReport("models/tiny", 100, (0, 2), layers, ())


def oracle(energy: float = 0.95, silu: float | None = 0.5, outside: tuple[str, ...] = ()) -> OracleReport:
    layers = tuple(
        LayerOracle(layer, 0.1, {1: 0.4, 2: energy - 0.1 * layer, 4: 1.0}, {1: 0.3, 2: 0.5, 4: 0.6}, 0.7, silu)
        for layer in (0, 1)
    )
    return OracleReport(layers, (1, 2, 4), 2, 1.5, 0.0, outside)


def overlapping(read: float | None = 0.0, shift: float = 0.5) -> Redundancy:
    blocks = tuple(
        BlockRedundancy(
            block,
            None if read is None else Overlap(read, read, 0.1),
            Overlap(shift * (block + 1) / 1.5, 0.9, 0.1),
            0.2,
        )
        for block in (0, 1)
    )
    return Redundancy(blocks, 100)


@pytest.fixture(scope="session")
def report() -> Report:
    """A report with every section."""
    findings = Findings(located(), updated(), oracle(outside=("embed.weight", "norm.weight")), overlapping())
    return Report(
        findings, {"model": "models/tiny", "data": "a<b>.jsonl"}, {"command": "actshift report --out 'r.html'"}
    )


@pytest.fixture
def advised() -> Callable[..., str]:
    """What a section advises for findings."""

    def say(key: str, **found: object) -> str:
        findings = Findings(**{"locate": located(), **found})  # type: ignore[arg-type]
        return next(one.advice for one in Report(findings, {}).sections if one.key == key)

    return say
