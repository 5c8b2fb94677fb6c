from __future__ import annotations

import pytest
import torch

from actshift.analysis.extract.model_pair import ModelPair, divergence, logits
from tests.analysis.extract.conftest import with_changed_blocks
from tests.analysis.twins import batches


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "falcon", "gpt_neox", "mixtral"])
def test_the_oracle_reproduces_the_fine_tuned_logits(name: str) -> None:
    base, finetuned = with_changed_blocks(name)
    pair, sizes = ModelPair.of(base, finetuned), []
    with torch.no_grad():
        for batch in batches(name):
            steered = pair.oracle_logits(batch, lambda layer, x, shift: sizes.append(shift.norm()))
            torch.testing.assert_close(steered, logits(finetuned, batch), rtol=0, atol=1e-6)
            assert (logits(base, batch) - logits(finetuned, batch)).abs().max() > 0.1
    assert len(sizes) == 2 * len(pair.blocks) and all(size > 0 for size in sizes)


def test_divergence_is_the_kl_of_unmasked_tokens() -> None:
    reference, predicted = torch.randn(2, 1, 3, 5)
    kl = divergence(reference, predicted, {"attention_mask": torch.tensor([[1, 0, 1]])})
    p, q = (torch.distributions.Categorical(logits=logits[0, [0, 2]]) for logits in (reference, predicted))
    torch.testing.assert_close(kl, torch.distributions.kl_divergence(p, q))
