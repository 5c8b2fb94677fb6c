"""Gradients of the loss at the sites and linear maps of a model, summed over batches before any training."""

from actshift.gradients.backward import BackwardStats as BackwardStats
from actshift.gradients.backward import Batch as Batch
from actshift.gradients.backward import backward as backward
from actshift.gradients.init import gradient_init as gradient_init
from actshift.gradients.taps import BatchGroup as BatchGroup
from actshift.gradients.taps import LinearMap as LinearMap
from actshift.gradients.taps import Tap as Tap
from actshift.gradients.taps import linear_maps as linear_maps
from actshift.gradients.taps import tap_host as tap_host
from actshift.gradients.taps import tap_map as tap_map
