"""Steering sites: find a model's transformer blocks, and the modules in them that a shift is added to."""

from actshift.sites.architectures import BRANCHES as BRANCHES
from actshift.sites.architectures import SITES as SITES
from actshift.sites.architectures import Branches as Branches
from actshift.sites.architectures import Site as Site
from actshift.sites.blocks import find_blocks as find_blocks
from actshift.sites.outputs import OutputMap as OutputMap
from actshift.sites.outputs import mlp_entry as mlp_entry
from actshift.sites.outputs import mlp_outputs as mlp_outputs
from actshift.sites.positions import Positions as Positions
from actshift.sites.resolve import Host as Host
from actshift.sites.resolve import check_site as check_site
from actshift.sites.resolve import hidden_of as hidden_of
from actshift.sites.resolve import resolve as resolve
from actshift.sites.resolve import with_hidden as with_hidden
