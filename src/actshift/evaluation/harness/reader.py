"""The model as lm-eval reads it, with prompts beyond its context refused or told of, where lm-eval only logs them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from actshift.errors import ActshiftError
from actshift.evaluation.harness.tasks import EXTRA
from actshift.evaluation.prompts import check_long_prompts
from actshift.extras import require
from actshift.loading import context_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def reader(model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int, long_prompts: str) -> Any:
    """Return `model`, the object as it is, as a model of lm-eval; `long_prompts` is as in `generate_completions`.

    Both kinds of requests go through here: texts to write on from, a batch at a time, the longest first, and pairs of
    a context and its continuation, whose likelihood is asked.
    """
    base: Any = require("lm_eval.models.huggingface", EXTRA).HFLM
    check_long_prompts(long_prompts)

    class Reader(base):
        def tok_batch_encode(self, strings: list[str], *args: Any, left_truncate_len: Any = None, **how: Any) -> Any:
            whole, mask = super().tok_batch_encode(strings, *args, **how)
            if left_truncate_len is None or whole.shape[1] <= left_truncate_len:
                return whole, mask
            _tell(mask.sum(1).tolist(), left_truncate_len, self.max_length, long_prompts)
            return whole[:, -left_truncate_len:], mask[:, -left_truncate_len:]

        def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **how: Any) -> Any:
            # The last token is only predicted, never read.
            lengths = (len(context) + len(continuation) - 1 for _, context, continuation in requests)
            _tell(lengths, self.max_length, self.max_length, long_prompts)
            return super()._loglikelihood_tokens(requests, *args, **how)

    context = context_length(model.config, tokenizer)
    return Reader(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, max_length=context)


def _tell(lengths: Iterable[int], room: int, context: int, long_prompts: str) -> None:
    lengths = list(lengths)
    if not (long := sum(length > room for length in lengths)):
        return
    found = f"{long} of {len(lengths)} prompts of the harness exceed {room} tokens, in a context of {context}"
    if long_prompts == "refuse":
        raise ActshiftError(
            f"{found}; ask for fewer solved examples, or set long_prompts to 'truncate' to have their ends read."
        )
    warnings.warn(f"{found}; of these the end is read.", stacklevel=2)
