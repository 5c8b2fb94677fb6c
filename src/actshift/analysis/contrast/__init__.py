"""Steering vectors from two sets of texts, without training."""

from actshift.analysis.contrast.card import card
from actshift.analysis.contrast.contrast import Contrast, contrast
from actshift.analysis.contrast.report import ContrastReport, LayerContrast

__all__ = ["Contrast", "ContrastReport", "LayerContrast", "card", "contrast"]
