"""Train an adapter in a plain PyTorch loop: attach, train, save, load, and change the strength.

python bare_loop.py            # offline, a few seconds, on the bundled model
"""

from __future__ import annotations

import torch

from actshift import SteeringConfig, attach, load_adapter, strength
from actshift.demo import load_base
from actshift.demo.task import make_rows

STEPS, BATCH = 40, 16


def main() -> None:
    torch.manual_seed(0)
    model, tokenizer = load_base()
    model = attach(model, SteeringConfig(rank=8, task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    rows = make_rows("train", STEPS * BATCH)
    for step in range(STEPS):
        batch = rows[step * BATCH : (step + 1) * BATCH]
        texts = [row["prompt"] + row["completion"] + tokenizer.eos_token for row in batch]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0:
            print(f"step {step:3}  loss {loss.item():.3f}")
    model.save_pretrained("bare-loop-adapter")

    steered = load_adapter(load_base()[0], "bare-loop-adapter").eval()
    prompt = tokenizer("what is the largest of three and five ? réponse :", return_tensors="pt")["input_ids"]
    for amount in (0, 0.5, 1):
        with strength(steered, amount):
            output = steered.generate(input_ids=prompt, max_new_tokens=8, do_sample=False)
        print(f"strength {amount}: {tokenizer.decode(output[0, prompt.shape[1] :], skip_special_tokens=True)}")


if __name__ == "__main__":
    main()
