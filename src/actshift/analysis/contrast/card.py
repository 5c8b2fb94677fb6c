"""The model card of a steering vector: what it is, how it was found, how to use it."""

from __future__ import annotations

from collections.abc import Sequence

from actshift.analysis.contrast.report import ContrastReport

CARD = """\
---
library_name: peft
tags: [actshift, steering]
---

# Steering vector for {model}

Adds a vector to the residual stream of `{model}` after block {blocks}, which points from `{negative}` to `{positive}`.
Nothing was trained.

```
{report}
```

Strength 1 is the step from the one side to the other, 0 the base model, -1 the other way:
`actshift generate --model {model} --adapter FOLDER --strength 1 --prompt "..."`
"""


def card(report: ContrastReport, layers: Sequence[int], positive: str, negative: str) -> str:
    """Return the README.md of an adapter that steers after `layers`, found on rows of these names."""
    blocks = ", ".join(map(str, layers))
    return CARD.format(model=report.model, blocks=blocks, positive=positive, negative=negative, report=report)
