"""From checked rows to token ids, by what the rows consist of."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from actshift.data import to_prompt_completion, token_ids
from actshift.errors import ActshiftError, did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


IGNORED = -100
"""The label of a token that the loss does not count."""

Ids = list[int]
Example = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids: `examples` of input_ids [seq] with labels, and how many rows were too long to be used.

    labels are [seq], or of a text with a class one number.
    """

    examples: list[Example]
    left_out: int

    @property
    def longest(self) -> int:
        """The length in tokens of the longest example."""
        return max(len(example["input_ids"]) for example in self.examples)

    @property
    def digest(self) -> str:
        """A fingerprint of all ids and labels, in order."""
        sha = hashlib.sha256()
        for example in self.examples:
            sha.update(json.dumps(example, sort_keys=True, separators=(",", ":")).encode())
        return sha.hexdigest()


def short_enough(lengths: Sequence[int], max_length: int, what: str = "row") -> list[int]:
    """Return the places of the lengths of no more than `max_length` tokens, and warn of the others.

    Raises ActshiftError where there are no such places.

    >>> short_enough([3, 2], max_length=8)
    [0, 1]
    """
    kept = [place for place, length in enumerate(lengths) if length <= max_length]
    if not kept:
        raise ActshiftError(
            f"Every {what} is longer than max_length {max_length}; the shortest has {min(lengths)} tokens, so raise it."
        )
    if left_out := len(lengths) - len(kept):
        warnings.warn(
            f"{left_out} of {len(lengths)} {what}s exceed max_length {max_length} and are left out.", stacklevel=3
        )
    return kept


def encode_language(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return `rows` as token ids with labels, at most `max_length` tokens each.

    A prompt + completion row is the prompt's ids, exactly as generation begins, the completion's ids and the
    end-of-text token; the labels of the prompt are `IGNORED`. A row longer than `max_length` is left out, since a
    prompt without its beginning, or a completion without its end, would teach something else. A text counts
    whole, and is cut into pieces of `max_length`.

    Raises:
        ActshiftError: the tokenizer has no end-of-text token or no chat template for messages, or every row is
            too long.
    """
    if tokenizer.eos_token_id is None:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} has no end-of-text token, which ends every completion; "
            "set tokenizer.eos_token and save it."
        )
    rendered = "messages" in rows.column_names
    rows = to_prompt_completion(rows, tokenizer)
    if "text" in rows.column_names:
        return Encoded(_text(rows["text"], tokenizer, max_length), left_out=0)
    whole = _pairs(rows["prompt"], rows["completion"], tokenizer, rendered)
    kept = short_enough([len(example["input_ids"]) for example in whole], max_length)
    return Encoded([whole[place] for place in kept], left_out=len(whole) - len(kept))


def _text(texts: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    pieces = []
    for ids in token_ids(tokenizer, texts):
        ids = _ended(ids, tokenizer)
        pieces += [ids[start : start + max_length] for start in range(0, len(ids), max_length)]
    return [{"input_ids": piece, "labels": piece} for piece in pieces if len(piece) > 1]


def _pairs(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: PreTrainedTokenizerBase, rendered: bool
) -> list[Example]:
    prompts, completions = list(prompts), list(completions)
    before = token_ids(tokenizer, prompts, add_special_tokens=not rendered)
    whole = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    joint = token_ids(tokenizer, whole, add_special_tokens=not rendered)
    alone = _continuations(completions, tokenizer)
    examples = []
    for prompt, both, completion in zip(before, joint, alone, strict=True):
        # Where a token spans the boundary, the prompt must keep the ids it has on its own.
        rest = both[len(prompt) :] if both[: len(prompt)] == prompt else completion
        rest = _ended(rest, tokenizer)
        examples.append({"input_ids": prompt + rest, "labels": [IGNORED] * len(prompt) + rest})
    return examples


def _continuations(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[Ids]:
    """Return the ids of each text as they are after another: SentencePiece puts a space before what it reads first."""
    [first], later, alone = (
        token_ids(tokenizer, some, add_special_tokens=False)
        for some in (["\n"], ["\n" + text for text in texts], texts)
    )
    # A line's end that melts into the text says nothing; the tokenizers that let it put no space there.
    return [
        after[len(first) :] if after[: len(first)] == first else ids for after, ids in zip(later, alone, strict=True)
    ]


def _ended(ids: Ids, tokenizer: PreTrainedTokenizerBase) -> Ids:
    end = cast(int, tokenizer.eos_token_id)
    return ids if ids[-1:] == [end] else [*ids, end]


def class_names(rows: Dataset) -> tuple[str, ...]:
    """Return the distinct labels, or tags, of rows, in the order of the alphabet, numbers in that of their size.

    >>> from datasets import Dataset
    >>> class_names(Dataset.from_dict({"text": ["a", "b", "c"], "label": ["10", "9", "9"]}))
    ('9', '10')
    """
    if "label" in rows.column_names:
        names = set(rows["label"])
    elif "tags" in rows.column_names:
        names = {tag for tags in rows["tags"] for tag in tags}
    else:
        return ()
    return tuple(sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)))


def encode_classes(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]
) -> Encoded:
    """Return texts (or pairs of texts) with the index of their label among `labels`; a long one is cut, with a warning.

    Raises ActshiftError for a label that is not among `labels`.
    """
    examples = _texts(rows, tokenizer, max_length, pairs="text_pair" in rows.column_names)
    for number, (example, label) in enumerate(zip(examples, rows["label"], strict=True), start=1):
        example["labels"] = label_index(label, labels, number)
    return Encoded(examples, left_out=0)


def encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return each text, and its partner as `pair_` ids, encoded apart: for vectors that are to lie near each other."""
    first = _texts(rows, tokenizer, max_length)
    second = _texts(rows.remove_columns("text").rename_column("text_pair", "text"), tokenizer, max_length)
    pairs = zip(first, second, strict=True)
    return Encoded([{**one, **{f"pair_{name}": ids for name, ids in two.items()}} for one, two in pairs], left_out=0)


def encode_texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded:
    """Return texts without any label; a long one is cut, with a warning."""
    return Encoded(_texts(rows, tokenizer, max_length), left_out=0)


def label_index(label: str, labels: Sequence[str], row: int) -> int:
    """Return the place of the label of row number `row` among `labels`; raise ActshiftError where it has none."""
    if label not in labels:
        raise ActshiftError(
            f"Row {row} has the label {label!r}{did_you_mean(label, labels)}; the model knows {', '.join(labels)}."
        )
    return labels.index(label)


def _texts(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, pairs: bool = False) -> list[Example]:
    texts = [list(rows["text"]), *([list(rows["text_pair"])] if pairs else [])]
    return examples_of(tokens_of(tokenizer, max_length, *texts))


def tokens_of(tokenizer: Any, max_length: int, *texts: list[Any], **how: Any) -> Any:
    """Return what the tokenizer makes of texts, cut at `max_length` with a warning; `how` is what else it is told."""
    whole = tokenizer(*texts, verbose=False, **how)
    if cut := sum(len(ids) > max_length for ids in whole["input_ids"]):
        warnings.warn(f"{cut} of {len(texts[0])} rows exceed max_length {max_length} and are cut at it.", stacklevel=5)
        return tokenizer(*texts, truncation=True, max_length=max_length, verbose=False, **how)
    return whole


def examples_of(encoded: Any) -> list[Example]:
    """Return the ids of each text of a tokenizer's output, and their types where the model tells these apart."""
    names = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    return [dict(zip(names, values, strict=True)) for values in zip(*(encoded[name] for name in names), strict=True)]


Places = list[int | None]


def encode_tags(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str]) -> Encoded:
    """Return words with the index of each one's tag at its first token; the other tokens' labels are `IGNORED`.

    Raises ActshiftError for a tag that is not among `labels`.
    """
    examples = []
    words = encode_words(rows["tokens"], tokenizer, max_length)
    for number, ((example, places), tags) in enumerate(zip(words, rows["tags"], strict=True), start=1):
        indices = [label_index(tag, labels, number) for tag in tags]
        examples.append({**example, "labels": [IGNORED if word is None else indices[word] for word in places]})
    return Encoded(examples, left_out=0)


def encode_words(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[Example, Places]]:
    """Return each row of words as ids, and for each of these the word that begins there, or None.

    Raises ActshiftError for a tokenizer that does not tell which word a token is of.
    """
    if not tokenizer.is_fast:
        raise ActshiftError(
            f"The tokenizer of {tokenizer.name_or_path} does not tell which word a token is of; use a fast one."
        )
    encoded: Any = tokens_of(tokenizer, max_length, list(rows), is_split_into_words=True)
    return [(example, first_tokens(encoded.word_ids(row))) for row, example in enumerate(examples_of(encoded))]


def first_tokens(words: Sequence[int | None]) -> Places:
    """Return the word that begins at each token, None elsewhere; `words` are those that the tokens are of.

    >>> first_tokens([None, 0, 1, 1, 2, None])
    [None, 0, 1, None, 2, None]
    """
    return [word if word != before else None for before, word in zip([None, *words], words, strict=False)]


PAIR = "pair_"
"""How the names of the second text's inputs begin."""
SCALE = 20.0
"""What cosines are multiplied with before the softmax: sentence-transformers' default, a temperature of 0.05."""


def unit_means(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `hidden` [batch, seq, d] over the tokens of `mask` [batch, seq], at length 1: [batch, d].

    The dot product of two such vectors is their cosine.

    >>> import torch
    >>> unit_means(torch.tensor([[[3.0, 0.0], [3.0, 8.0], [9.0, 9.0]]]), torch.tensor([[1, 1, 0]]))
    tensor([[0.6000, 0.8000]])
    """
    counted = mask.unsqueeze(-1).to(hidden.dtype)
    means = (hidden * counted).sum(1) / counted.sum(1)
    return means / means.norm(dim=-1, keepdim=True)


def sides(batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is the first text's and what is the second's of an example or a batch of pairs, names as a model's.

    >>> sides({"input_ids": [5], "pair_input_ids": [6]})
    ({'input_ids': [5]}, {'input_ids': [6]})
    """
    first = {name: value for name, value in batch.items() if not name.startswith(PAIR)}
    return first, {name.removeprefix(PAIR): value for name, value in batch.items() if name.startswith(PAIR)}


def partner_loss(model: Any, batch: Mapping[str, Tensor], scale: float = SCALE) -> Tensor:
    """Return the mean of -log softmax_j(scale · cos(u_i, v_j)) at j = i: the other rows' partners are the negatives.

    u and v are the `unit_means` of the two texts of each row of a batch, as `model` reads them.

    Source: InfoNCE, van den Oord et al., arXiv 1807.03748; with in-batch negatives Henderson et al., arXiv 1705.00652.
    """
    import torch
    from torch.nn import functional as F

    u, v = (unit_means(model(**side).last_hidden_state.float(), side["attention_mask"]) for side in sides(batch))
    return F.cross_entropy(scale * u @ v.T, torch.arange(len(u), device=u.device))


def encode(rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Return `rows` as token ids with labels, at most `max_length` tokens each.

    Rows are prompt + completion, messages or text, for a language model; text (+ text_pair) with a label, or tokens
    with tags, whose names are `labels`; or text with text_pair, which become ids apart.

    Raises ActshiftError for what the tokenizer lacks, a label that is not among `labels`, or rows all too long.
    """
    columns = set(rows.column_names)
    if "label" in columns:
        return encode_classes(rows, tokenizer, max_length, labels)
    if "tags" in columns:
        return encode_tags(rows, tokenizer, max_length, labels)
    if "text_pair" in columns:
        return encode_pairs(rows, tokenizer, max_length)
    return encode_language(rows, tokenizer, max_length)
