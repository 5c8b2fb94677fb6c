"""Steering vectors from the contrast of two sets of texts, without training."""

from actshift.analysis.contrast.contrast import Contrast as Contrast
from actshift.analysis.contrast.contrast import card as card
from actshift.analysis.contrast.contrast import contrast as contrast
from actshift.analysis.contrast.report import ContrastReport as ContrastReport
from actshift.analysis.contrast.report import LayerContrast as LayerContrast
