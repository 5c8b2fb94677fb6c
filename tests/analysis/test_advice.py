"""The sections of the reports: which there are, and that their advice follows from the figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actshift.analysis.locate.report import WORTHWHILE
from actshift.analysis.redundancy import BlockRedundancy, Redundancy
from actshift.analysis.report import Findings, Report
from tests.analysis.example_reports import (
    equivalence_report,
    locate_report,
    oracle_report,
    redundancy_report,
    site_gain,
)


def keys(**reports: object) -> list[str]:
    findings = Findings(**{"locate": locate_report(), **reports})  # type: ignore[arg-type]
    return [section.key for section in Report(findings, {}).sections]


def test_each_report_has_its_sections():
    locate_keys = ["where", "maps", "gain"]
    assert keys() == locate_keys
    assert keys(equivalence=equivalence_report(), oracle=oracle_report()) == [
        *locate_keys,
        "skip",
        "remainder",
        "oracle",
    ]
    assert keys(redundancy=redundancy_report()) == [*locate_keys, "halves"]
    report = locate_report()
    assert keys(locate=replace(report, places=tuple(p for p in report.places if not p.weight))) == ["where", "gain"]
    assert keys(locate=replace(report, places=tuple(p for p in report.places if p.weight))) == ["maps", "gain"]


def test_without_a_known_mlp_the_attention_and_the_shares_are_shown():
    report = equivalence_report(skips=(None, None))
    report = replace(report, layers=tuple(replace(layer, mlp=None, post_mlp=None) for layer in report.layers))
    shares, remainder = report.sections
    assert shares.title == "What steering could copy" and shares.advice.startswith("Steer after the block")
    assert [row[1:6] for row in shares.rows] == [("–", "10 %", "–", "–", "90 %")] * 2
    assert "the attention of a block" in remainder.how_to_read and "MLPs'" not in remainder.advice
    assert shares.draw() and remainder.draw()
    bare = replace(report, layers=tuple(replace(layer, attention=None) for layer in report.layers))
    assert [section.key for section in bare.sections] == ["skip"]


def test_the_title_names_the_topics():
    assert Report(Findings(locate_report()), {}).title == "tiny: where to steer"
    assert Report(Findings(locate_report(), redundancy=redundancy_report()), {}).title.endswith(
        "steer and how its two halves overlap"
    )


def test_advice_names_the_best_place_and_the_best_allocation(advice_of):
    advice = advice_of("where")
    assert advice.startswith("Start at post_block of block 1, which gains 6.03 ± 0.06. ")
    # 80 parameters at post_block: 4 ranks of 20; the best 4 of 3, .3, 6, .6, .75, .075, 1.5, .15 are 6, 3, 1.5, .75
    assert "the 80 parameters of post_block rank 2 in every block gain 1.03 times as much" in advice
    assert "`actshift locate --rank 2 --budget 80`" in advice
    assert advice.endswith(": 50 % at post_block and 50 % at post_mlp.")


def test_gains_due_to_chance_ask_for_more_rows_first(advice_of):
    report = locate_report()
    chance = replace(report, places=tuple(replace(place, held_out=(0.0, 0.0)) for place in report.places))
    assert advice_of("where", locate=chance).startswith(
        "Give more rows, because only 0 % of the gains hold on other batches. Then start at post_block of block 1"
    )
    [section, *_] = chance.sections
    assert "80 targets in 8 batches" in section.note and "the rest is chance" in section.note


def test_an_even_spread_that_gains_as_much_is_recommended(advice_of):
    flat = replace(locate_report(), places=tuple(site_gain("post_block", layer, 3.0) for layer in (0, 1)))
    advice = advice_of("where", locate=flat)
    assert "Spread them evenly: the 80 parameters" in advice and "gain no more in any other allocation" in advice
    assert WORTHWHILE > 1


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            locate_report(3.0, 1.0),
            "If parameters are few, prefer post_block r=1 to LoRA mlp.down_proj r=1: it gains 3.0 times",
        ),
        (
            locate_report(1.0, 2.0),
            "If parameters are few, prefer LoRA mlp.down_proj r=1 to post_block r=1: it gains 2.0 times",
        ),
        (locate_report(1.0, 1.05, noise=0.1), "within the noise they gain alike"),
        (locate_report(groups=1), "Give more rows"),
    ],
)
def test_advice_compares_steering_with_lora(advice_of, report, words):
    assert words in advice_of("gain", locate=report)


def test_gains_of_zero_give_advice_without_an_error(advice_of):
    """The loss depends on no site and no map, for example because every target is masked."""
    report = locate_report(0.0, 0.0)
    assert "Spread them evenly" in advice_of("where", locate=report)
    assert "with 0 % of the squared gain" in advice_of("maps", locate=report)
    assert "within the noise they gain alike" in advice_of("gain", locate=report)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            equivalence_report(),
            ["Steer after the block:", "copies 90 % of", "60 % after the MLP", "half of the output in block 1, up"],
        ),
        (equivalence_report(block=0.61), ["Choose between block and MLP"]),
        (equivalence_report(block=0.4), ["Try steering after the MLP:", "The skip connection carries"]),
        (
            equivalence_report(skips=(0.2, 0.3)),
            ["The MLP carries more than half of the output in every block, and the skip connection 30 % at most"],
        ),
    ],
)
def test_advice_compares_the_block_with_the_mlp(advice_of, report, words):
    advice = advice_of("skip", equivalence=report)
    assert all(word in advice for word in words), advice


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (
            (0.02, 0.04),
            "for an update of this size: at its full size the first order misses 2.0 % to 4.0 % of the MLPs'",
        ),
        ((0.05, 0.9), "for the first 10 % of this update"),
        ((0.05, 90.0), "for a direction alone"),
    ],
)
def test_advice_limits_the_trust_in_the_first_order(advice_of, errors, words):
    assert words in advice_of("remainder", equivalence=equivalence_report(errors=errors))


def test_the_power_of_the_remainder_is_reported():
    [_, section] = equivalence_report().sections
    assert "the error falls with the power 2 of the scale; here the power is 2.00." in section.note


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (
            oracle_report(1.0),
            "Extract at rank 2 (`actshift extract --rank 2`), which covers 90 % to 100 % of the energy",
        ),
        (oracle_report(0.95), "Extract at rank 4"),
        (oracle_report(silu=0.6), "Train it with SiLU"),
        (oracle_report(silu=0.51), "Keep it linear"),
        (oracle_report(silu=None), "A linear map of rank 2 explains 50 %"),
    ],
)
def test_advice_names_the_rank_and_the_kind_of_map(advice_of, report, words):
    assert words in advice_of("oracle", oracle=report)


def test_blocks_without_a_shift_do_not_affect_the_advised_rank(advice_of):
    report = oracle_report(1.0)
    unchanged = replace(report.layers[1], layer=2, size=0.0, energy=dict.fromkeys(report.ranks, 0.0))
    assert "Extract at rank 2" in advice_of("oracle", oracle=replace(report, layers=(*report.layers, unchanged)))


def test_a_nonlinear_rank_that_was_not_fitted_linearly_gives_no_comparison(advice_of):
    assert "linear map" not in advice_of("oracle", oracle=replace(oracle_report(), nonlinear_rank=3))


def test_a_flat_spectrum_asks_for_a_higher_rank(advice_of):
    report = oracle_report()
    layers = tuple(replace(layer, energy={1: 0.1, 2: 0.2, 4: 0.3 - 0.1 * layer.layer}) for layer in report.layers)
    advice = advice_of("oracle", oracle=replace(report, layers=layers))
    assert "rank 4 covers only 20 % of the energy in block 1" in advice


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (redundancy_report(0.0, 0.5), ["Leave the rule as it is", "Try each half alone", "by 0.50, most in block 1"]),
        (redundancy_report(0.4, 0.15), ["Train again with `--orthogonality read`", "Keep both halves"]),
        (redundancy_report(None, 0.5), ["Try each half alone"]),
        (Redundancy((BlockRedundancy(0, None, None, None),), 10), ["Train the adapter first"]),
    ],
)
def test_advice_follows_from_the_overlap_of_the_halves(advice_of, report, words):
    advice = advice_of("halves", redundancy=report)
    assert all(word in advice for word in words), advice


def test_every_section_is_complete(full_report):
    for section in full_report.sections:
        assert all((section.title, section.alt, section.rows)) and ". " not in section.how_to_read
        assert {len(row) for row in section.rows} == {len(section.columns)}
        assert section.plot is not None
        for text in (section.how_to_read, section.advice, *([section.note] if section.note else [])):
            assert text[0].isupper() or section.note.startswith("models/tiny"), text
            assert text.endswith("."), text
        if section.shades:
            assert [len(row) for row in section.shades] == [len(row) - 1 for row in section.rows]
            assert max(max(row) for row in section.shades) == 1
