"""What a run leaves as it found it: the model's methods and settings, and what the libraries say."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def traceless(model: Any) -> Iterator[None]:
    """Undo what the trainer does to a model beside training it.

    It puts a fused loss and autocast on `forward`, which would pile up and break pickling, and switches the cache off.
    """
    from actshift.sites.blocks import unwrap

    inner: Any = unwrap(model)
    forwards = [(module, module.__dict__.get("forward")) for module in (model, inner)]
    use_cache = inner.config.use_cache
    try:
        yield
    finally:
        inner.config.use_cache = use_cache
        for module, forward in forwards:
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_original_forward", None)
            if forward is not None:
                module.forward = forward


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' bars and advice, which concern our calls, out of the way of our own progress."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
