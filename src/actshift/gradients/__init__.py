"""What backward passes tell before anything is trained: G = Σ g xᵀ at the sites and weights of a model."""

from actshift.gradients.backward import BackwardStats, Batch, backward
from actshift.gradients.init import gradient_init
from actshift.gradients.sketch import Exact, Factors, Sketch
from actshift.gradients.taps import BatchGroup, LinearMap, Tap, linear_maps, tap_host, tap_map

__all__ = [
    "BackwardStats",
    "Batch",
    "BatchGroup",
    "Exact",
    "Factors",
    "LinearMap",
    "Sketch",
    "Tap",
    "backward",
    "gradient_init",
    "linear_maps",
    "tap_host",
    "tap_map",
]
