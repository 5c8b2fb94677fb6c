"""Reports with invented figures, whose advice is known."""

from __future__ import annotations

from dataclasses import replace

from actshift.analysis.equivalence import EquivalenceReport, LayerEquivalence, Remainder
from actshift.analysis.extract import LayerOracle, OracleReport
from actshift.analysis.locate import LocateReport, SiteGain
from actshift.analysis.redundancy import BlockRedundancy, Overlap, Redundancy

SCALES = (0.01, 0.1, 1.0)


def site_gain(site: str, layer: int, gain: float, weight: bool = False, noise: float = 0.01) -> SiteGain:
    """Return a gain at a site of width 10, nearly all in the first direction, with the noise of two groups."""
    values = (gain, gain / 10)
    spread = tuple(tuple(value * (1 + sign * noise) for value in values) for sign in (-1, 1))
    mean = () if weight else (gain / 5, gain / 5)
    return SiteGain(site, layer, site, 10, 10, weight, False, values, None if weight else gain / 5, spread, mean)


def locate_report(steering: float = 3.0, lora: float = 1.0, groups: int = 2, noise: float = 0.01) -> LocateReport:
    """Return a report of two sites and one linear map in two blocks. The second block gains twice as much."""
    places = [site_gain("post_block", layer, (layer + 1) * steering, noise=noise) for layer in (0, 1)]
    places += [site_gain("post_mlp", layer, (layer + 1) * steering / 4, noise=noise) for layer in (0, 1)]
    places += [site_gain("mlp.down_proj", layer, (layer + 1) * lora, True, -noise) for layer in (0, 1)]
    if groups == 1:
        places = [replace(place, singular_values_without=(), mean_without=()) for place in places]
    return LocateReport("models/tiny", 1000, 2, 2.5, 80, 8, groups, tuple(places))


def remainder(full: float) -> Remainder:
    """Return a remainder that falls with the square of the scale, and is `full` of the shift at full size."""
    return Remainder(SCALES, SCALES, SCALES, tuple(full * scale**2 for scale in SCALES), 0.1)


def equivalence_report(
    skips: tuple[float | None, ...] = (0.3, 0.7), errors: tuple[float, float] = (0.05, 0.2), block=0.9, mlp=0.6
) -> EquivalenceReport:
    layers = tuple(
        LayerEquivalence(
            layer, skip, remainder(error / 2), remainder(error), None, 1.0, 2.0, {0: 0.1, 2: mlp}, {0: 0.1, 2: block}
        )
        for layer, (skip, error) in enumerate(zip(skips, errors, strict=True))
    )
    return EquivalenceReport("models/tiny", 100, (0, 2), layers, ())


def oracle_report(energy: float = 0.95, silu: float | None = 0.5, outside: tuple[str, ...] = ()) -> OracleReport:
    layers = tuple(
        LayerOracle(layer, 0.1, {1: 0.4, 2: energy - 0.1 * layer, 4: 1.0}, {1: 0.3, 2: 0.5, 4: 0.6}, 0.7, silu)
        for layer in (0, 1)
    )
    return OracleReport(layers, (1, 2, 4), 2, 1.5, 0.0, outside)


def redundancy_report(read: float | None = 0.0, shift: float = 0.5) -> Redundancy:
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
