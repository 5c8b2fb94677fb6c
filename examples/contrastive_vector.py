"""Steer without training, by the difference between two sets of texts: English questions get French answers.

python contrastive_vector.py            # offline, a few seconds, on the bundled model
"""

from __future__ import annotations

from actshift import load_adapter, strength
from actshift.analysis.contrast import contrast
from actshift.demo import load_base
from actshift.evaluation import generate_completions

FACTS = [("anna", "three", "trois", "cats", "chats"), ("ben", "seven", "sept", "keys", "clés"),
         ("clara", "nine", "neuf", "books", "livres"), ("felix", "two", "deux", "stars", "étoiles")]  # fmt: skip
PROMPTS = ["what is the largest of three , nine and four ? answer :", "what is the sum of two and five ? answer :"]


def main() -> None:
    french = [f"{name} a {n} {things} . combien de {things} a {name} ? réponse :" for name, _, n, _, things in FACTS]
    english = [
        f"{name} has {n} {things} . emma has one {things} . who has more {things} ? answer :"
        for name, n, _, things, _ in FACTS
    ]
    model, tokenizer = load_base()
    vectors = contrast(model, tokenizer, french, english)
    print(vectors.report)
    vectors.attach(model, layers=[3]).save_pretrained("french-vector")  # like any PEFT adapter

    steered = load_adapter(load_base()[0], "french-vector").eval()
    for amount in (0, 2, 4):
        with strength(steered, amount):
            print(f"strength {amount}: {generate_completions(steered, tokenizer, PROMPTS, max_new_tokens=4)}")


if __name__ == "__main__":
    main()
