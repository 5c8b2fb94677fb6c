"""What the blocks below the first steered one give, kept for each batch: training then runs the blocks above alone."""

from actshift.training.prefix.run import cache_bytes, cached_prefix, check_prefix

__all__ = ["cache_bytes", "cached_prefix", "check_prefix"]
