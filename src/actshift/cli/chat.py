"""`actshift chat`: talk to a model, with the adapter switched on, off or in between."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from actshift.cli.steered import Adapter, Half, Model, Strength, Temperature, TrustRemoteCode, load_steered
from actshift.errors import ActshiftError, did_you_mean

COMMANDS = "/base switches the adapter off and on, /strength 0.5 sets it, /exit ends."


def chat(
    model: Model = None,
    adapter: Adapter = None,
    strength: Strength = 1.0,
    half: Half = "both",
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", min=1, help="Tokens of an answer; by default half the context, 512 at most."),
    ] = None,
    temperature: Temperature = 0.0,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Talk to a model; answers appear as they are written, and the adapter can be switched as you talk."""
    loaded, tokenizer, _ = load_steered(model, [adapter] if adapter else [], strength, trust_remote_code, half)
    from actshift.loading import context_length

    limit = max_new_tokens or min(512, context_length(loaded.config, tokenizer) // 2)
    conversation = Conversation(loaded, tokenizer, limit, temperature, strength)
    typer.echo(COMMANDS, err=True)
    if not tokenizer.chat_template:
        typer.echo("This model has no chat template: it continues each line by itself.", err=True)
    while True:
        try:
            line = input("> ").strip()
            if line == "/exit":
                return
            if line.startswith("/"):
                typer.echo(conversation.command(line), err=True)
            elif line:
                conversation.answer(line)
        except (EOFError, KeyboardInterrupt):  # Ctrl-D and Ctrl-C are how one leaves, not failures
            typer.echo()
            return
        except ActshiftError as error:
            typer.echo(f"actshift: {error}", err=True)


@dataclass
class Conversation:
    """What has been said so far, and how the next answer is steered."""

    model: Any
    tokenizer: Any
    max_new_tokens: int
    temperature: float
    strength: float
    at_base: bool = False
    messages: list[dict[str, str]] = field(default_factory=list)

    def command(self, line: str) -> str:
        """Carry out `/base` or `/strength S`, and return what holds now."""
        from actshift.tuner import set_strength

        verb, _, value = line.partition(" ")
        if verb == "/base":
            if not hasattr(self.model, "peft_config"):
                raise ActshiftError("there is no adapter to switch off; start with --adapter.")
            self.at_base = not self.at_base
        elif verb == "/strength":
            set_strength(self.model, _number(value))
            self.at_base, self.strength = False, float(value)
        else:
            raise ActshiftError(f"there is no {verb}{did_you_mean(verb, ('/base', '/strength', '/exit'))}; {COMMANDS}")
        return "the base model answers" if self.at_base else f"the adapter acts at strength {self.strength:g}"

    def answer(self, line: str) -> None:
        """Print the model's answer as it is written; with a chat template, remember it for the next."""
        from actshift.evaluation import stream_completion

        asked = [*self.messages, {"role": "user", "content": line}]
        prompt, talks = line, bool(self.tokenizer.chat_template)
        if talks:
            prompt = self.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        with self.model.disable_adapter() if self.at_base else nullcontext():
            text = stream_completion(
                self.model, self.tokenizer, prompt, _write, self.max_new_tokens, self.temperature, not talks
            )
        typer.echo()
        if talks:
            self.messages = [*asked, {"role": "assistant", "content": text}]


def _write(piece: str) -> None:
    print(piece, end="", flush=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ActshiftError(f"/strength takes a number, as in /strength 0.5; got {text!r}.") from None
