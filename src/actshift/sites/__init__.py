"""Where a model can be steered: find its blocks, and resolve sites to modules."""

from actshift.sites.architectures import BRANCHES, Branches
from actshift.sites.blocks import find_blocks
from actshift.sites.resolve import resolve
from actshift.sites.site import SITES, Host, Site

__all__ = ["BRANCHES", "SITES", "Branches", "Host", "Site", "find_blocks", "resolve"]
