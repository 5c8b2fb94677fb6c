"""Sites: the places in a transformer block that can be steered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from actshift.errors import ActshiftError, did_you_mean

Site = Literal["post_block", "post_mlp", "post_attention", "attention_heads"]
"""Where the shift is added: after both skips, to the MLP's branch, to the attention's branch, or to what its heads
give, before the output projection mixes them."""

SITES: tuple[str, ...] = get_args(Site)


@dataclass(frozen=True)
class Host:
    """One module whose output is steered: the hidden states `[batch, seq, width]`, or a tuple they begin.

    At `attention_heads` it is the module's input that is steered (`at_input`), which is `heads` vectors side by side.

    `layer` counts the blocks from 0 in forward order (an encoder's, then the decoder's), `name` is the
    module's qualified name in the model without its PEFT wrapper, and `width` is that of the activation. OPT's
    `post_mlp` is flat, `[batch * seq, width]`.
    """

    site: str
    layer: int
    name: str
    module: nn.Module
    width: int
    heads: int | None = None

    @property
    def at_input(self) -> bool:
        """Whether what goes into the module is steered, and not what comes out."""
        return self.site == "attention_heads"


def hidden_of(output: Any) -> Any:
    """Return the hidden states in what a module returned: all of it, or what a tuple begins with.

    >>> hidden_of(("hidden", "weights"))
    'hidden'
    """
    return output[0] if isinstance(output, tuple) else output


def with_hidden(output: Any, hidden: Any) -> Any:
    """Return `output` with other hidden states, whether it is a tuple that begins with them or not.

    >>> with_hidden(("hidden", "weights"), "steered")
    ('steered', 'weights')
    """
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def check_site(site: str) -> None:
    """Raise ActshiftError unless `site` is one of SITES.

    >>> check_site("post_block")
    """
    if site not in SITES:
        hint = did_you_mean(str(site).replace("-", "_"), SITES)
        raise ActshiftError(f"There is no site {site!r}{hint}; the sites are {', '.join(SITES)}.")
