"""Steering vectors from the contrast of two sets of texts, without training."""

from actshift.analysis.contrast.contrast import Contrast as Contrast
from actshift.analysis.contrast.contrast import card as card
from actshift.analysis.contrast.contrast import contrast as contrast
