"""What backward passes tell before anything is trained: G = Σ g xᵀ at the sites and weights of a model."""

from actshift.gradients.backward import Batch, Seen, backward
from actshift.gradients.init import gradient_init
from actshift.gradients.sketch import Exact, Factors, Sketch
from actshift.gradients.taps import Clock, LinearMap, Tap, linear_maps, tap_host, tap_map

__all__ = [
    "Batch",
    "Clock",
    "Exact",
    "Factors",
    "LinearMap",
    "Seen",
    "Sketch",
    "Tap",
    "backward",
    "gradient_init",
    "linear_maps",
    "tap_host",
    "tap_map",
]
