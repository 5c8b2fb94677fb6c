"""What is advised follows from the figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actshift.analysis.locate.rendering import LITTLE
from actshift.analysis.report import Findings, Report
from tests.analysis.report.conftest import located, oracle, overlapping, place, updated


def keys(**found: object) -> list[str]:
    return [one.key for one in Report(Findings(**{"locate": located(), **found}), {}).sections]  # type: ignore[arg-type]


def test_each_finding_has_its_sections():
    assert keys() == ["where", "maps", "gain"]
    assert keys(equivalence=updated(), oracle=oracle()) == ["where", "maps", "gain", "skip", "remainder", "oracle"]
    assert keys(redundancy=overlapping()) == ["where", "maps", "gain", "halves"]
    bare = located()
    bare = replace(bare, places=tuple(place for place in bare.places if not place.weight))
    assert keys(locate=bare) == ["where", "gain"]
    unknown = updated(skips=(None, None))
    unknown = replace(unknown, layers=tuple(replace(one, mlp=None, post_mlp=None) for one in unknown.layers))
    assert keys(equivalence=unknown) == ["where", "maps", "gain"]


def test_the_title_tells_what_there_is():
    assert Report(Findings(located()), {}).title == "tiny: where to steer"
    assert Report(Findings(located(), redundancy=overlapping()), {}).title.endswith(
        "steer and what its two halves share"
    )


def test_where_to_start_and_how_to_spend(advised):
    said = advised("where")
    assert said.startswith("Start at post_block of block 1, which gains 6.03 ± 0.06;")
    # 80 parameters at post_block: 4 ranks of 20; the best 4 of 3, .3, 6, .6, .75, .075, 1.5, .15 are 6, 3, 1.5, .75
    assert "the 80 parameters of post_block rank 2 in every block gain 1.03 times as much" in said
    assert "`actshift locate --rank 2 --budget 80` does: 50 % at post_block and 50 % at post_mlp" in said


def test_gains_that_are_chance_ask_for_more_rows_first(advised):
    lucky = replace(located(), places=tuple(replace(one, held_out=(0.0, 0.0)) for one in located().places))
    assert advised("where", locate=lucky).startswith(
        "Give more rows, as 0 % of the gains hold on batches left out, then"
    )
    [section, *_] = Report(Findings(lucky), {}).sections
    assert "80 targets in 8 batches" in section.note and "the rest is chance" in section.note


def test_an_even_spread_that_is_as_good_is_kept(advised):
    flat = replace(located(), places=tuple(place("post_block", layer, 3.0) for layer in (0, 1)))
    assert "gain no more however else they are spent, so spread them evenly" in advised("where", locate=flat)
    assert LITTLE > 1


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            located(3.0, 1.0),
            "Prefer post_block r=1 to LoRA mlp.down_proj r=1 where parameters are few: it gains 3.0 times",
        ),
        (
            located(1.0, 2.0),
            "Prefer LoRA mlp.down_proj r=1 to post_block r=1 where parameters are few: it gains 2.0 times",
        ),
        (located(1.0, 1.05, noise=0.1), "they gain alike within the noise"),
        (located(groups=1), "Give more rows"),
    ],
)
def test_steering_against_lora(advised, report, words):
    assert words in advised("gain", locate=report)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            updated(),
            ["Steer after the block:", "copies 90 % of", "60 % after the MLP", "half of the output in block 1, up"],
        ),
        (updated(block=0.61), ["Choose between block and MLP"]),
        (updated(block=0.4), ["Try steering after the MLP:", "though the skip carries"]),
        (updated(skips=(0.2, 0.3)), ["the MLP carries more than half in every block, the skip 30 % at most"]),
    ],
)
def test_after_the_block_or_after_the_mlp(advised, report, words):
    said = advised("skip", equivalence=report)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("misses", "words"),
    [
        (
            (0.02, 0.04),
            "for an update of this size: at its full size the first order misses 2.0 % to 4.0 % of the MLPs'",
        ),
        ((0.05, 0.9), "for the first 10 % of this update"),
        ((0.05, 90.0), "for a direction alone"),
    ],
)
def test_how_far_the_first_order_is_trusted(advised, misses, words):
    assert words in advised("remainder", equivalence=updated(misses=misses))


def test_the_power_of_the_miss_is_told():
    [section] = [one for one in Report(Findings(located(), updated()), {}).sections if one.key == "remainder"]
    assert "the miss itself falls with the square, which here is the power 2.00." in section.reading


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (oracle(1.0), "Extract at rank 2 (`actshift extract --rank 2`), which holds 90 % to 100 % of the energy"),
        (oracle(0.95), "Extract at rank 4"),
        (oracle(silu=0.6), "train it with SiLU"),
        (oracle(silu=0.51), "keep it linear"),
        (oracle(silu=None), "where a linear map of rank 2 predicts 50 %"),
    ],
)
def test_the_rank_and_kind_to_extract(advised, report, words):
    assert words in advised("oracle", oracle=report)


def test_a_spectrum_without_an_end(advised):
    wide = oracle()
    wide = replace(
        wide, layers=tuple(replace(one, energy={1: 0.1, 2: 0.2, 4: 0.3 - 0.1 * one.layer}) for one in wide.layers)
    )
    assert "rank 4 holds only 20 % of the energy in block 1" in advised("oracle", oracle=wide)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (overlapping(0.0, 0.5), ["Leave the rule as it is", "try each half alone", "by 0.50, most in block 1"]),
        (overlapping(0.4, 0.15), ["Train again with `--orthogonality read`", "keep both halves"]),
        (overlapping(None, 0.5), ["Try each half alone"]),
    ],
)
def test_the_halves(advised, report, words):
    said = advised("halves", redundancy=report)
    assert all(word in said for word in words), said


def test_every_section_says_all_it_must(report):
    for one in report.sections:
        assert all((one.title, one.alt, one.rows)) and one.reading.endswith(".") and one.advice.endswith(".")
        assert {len(row) for row in one.rows} == {len(one.columns)}
        for sentence in (one.reading, one.advice):
            assert sentence[0].isupper() and ". " not in sentence, sentence
