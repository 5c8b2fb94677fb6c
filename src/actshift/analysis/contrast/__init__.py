"""Steering vectors from two sets of texts, without training."""

from actshift.analysis.contrast.contrast import Contrast, card, contrast
from actshift.analysis.contrast.report import ContrastReport, LayerContrast

__all__ = ["Contrast", "ContrastReport", "LayerContrast", "card", "contrast"]
