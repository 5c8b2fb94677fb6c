"""Rows of training and evaluation data: read, check, render as chat, tokenize and pad them."""

from actshift.data.chat import check_template, is_chat, render_prompt, to_prompt_completion, token_ids
from actshift.data.rows import LABELLED, LANGUAGE, PREFERENCES, PROMPTS, check_rows, load_rows

__all__ = [
    "LABELLED", "LANGUAGE", "PREFERENCES", "PROMPTS",
    "check_rows", "check_template", "is_chat", "load_rows", "render_prompt", "to_prompt_completion", "token_ids",
]  # fmt: skip
