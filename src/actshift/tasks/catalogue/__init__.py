"""What tasks there are, as facts, with an example each, and as a page."""

from actshift.tasks.catalogue.entry import Entry, entry_of
from actshift.tasks.catalogue.page import page

__all__ = ["Entry", "entry_of", "page"]
