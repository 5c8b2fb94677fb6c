"""Steering sites: find a model's transformer blocks, and the modules in them that a shift is added to."""

from actshift.sites.architectures import BRANCHES, SITES, Branches, Site
from actshift.sites.blocks import find_blocks
from actshift.sites.positions import Positions
from actshift.sites.resolve import Host, OutputMap, check_site, hidden_of, mlp_entry, mlp_outputs, resolve, with_hidden

__all__ = [
    "BRANCHES", "SITES", "Branches", "Host", "OutputMap", "Positions", "Site",
    "check_site", "find_blocks", "hidden_of", "mlp_entry", "mlp_outputs", "resolve", "with_hidden",
]  # fmt: skip
