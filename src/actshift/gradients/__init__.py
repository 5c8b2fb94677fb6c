"""What backward passes tell before anything is trained: G = Σ g xᵀ at the sites and weights of a model."""

from actshift.gradients.backward import Batch, Seen, backward
from actshift.gradients.exact import Exact, Factors
from actshift.gradients.init import gradient_init
from actshift.gradients.maps import LinearMap, linear_maps
from actshift.gradients.sketch import Sketch
from actshift.gradients.taps import Clock, Tap, tap_host, tap_map

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
