"""How well the bundled base model works out list operations in the forms it was pretrained on."""

from __future__ import annotations

import random

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from actshift.demo.corpus import FORMS
from actshift.demo.expressions import Expression, random_expression
from actshift.evaluation import evaluate


def held_out_expressions(depth: int, n: int, seed: int = 0) -> list[Expression]:
    """Draw `n` expressions that pretraining left out (at depth 1 there are too few to leave any out)."""
    rng = random.Random(seed)
    expressions: list[Expression] = []
    while len(expressions) < n:
        expression = random_expression(rng, depth)
        if depth == 1 or expression.is_held_out:
            expressions.append(expression)
    return expressions


def skill_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, form: str, depth: int, n: int = 500
) -> float:
    """Exact-match accuracy of greedy answers to `n` expressions in one of `FORMS`."""
    documents = [FORMS[form](expression) for expression in held_out_expressions(depth, n)]
    rows = [{"prompt": document.context, "completion": document.answer} for document in documents]
    return evaluate(model, tokenizer, rows, max_new_tokens=8, batch_size=256).accuracy
