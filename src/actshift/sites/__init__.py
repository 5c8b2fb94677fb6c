"""Where a model can be steered: find its blocks, and resolve sites to modules."""

from actshift.sites.architectures import BRANCHES, Branches
from actshift.sites.blocks import find_blocks
from actshift.sites.outputs import OutputMap, mlp_entry, mlp_outputs
from actshift.sites.positions import Positions
from actshift.sites.resolve import SITES, Host, Site, check_site, hidden_of, resolve, with_hidden

__all__ = [
    "BRANCHES",
    "SITES",
    "Branches",
    "Host",
    "OutputMap",
    "Positions",
    "Site",
    "check_site",
    "find_blocks",
    "hidden_of",
    "mlp_entry",
    "mlp_outputs",
    "resolve",
    "with_hidden",
]
