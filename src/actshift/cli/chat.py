"""`actshift chat`: a conversation with a model whose adapter can be switched on, off or in between."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

from typer import Option

from actshift.cli import options
from actshift.cli.models import load_steered
from actshift.cli.output import echo
from actshift.cli.prompts import ChatMode, choose_chat
from actshift.errors import ActshiftError, did_you_mean

COMMANDS = "/base switches the adapter off and on, /strength 0.5 sets its strength, /quit or /exit ends the chat."
END = ("/quit", "/exit")


def chat(
    model: options.Model = None,
    adapter: options.Adapter = None,
    strength: options.Strength = None,
    half: options.Half = "both",
    max_new_tokens: Annotated[
        int | None,
        Option(min=1, max=options.LARGEST, help="Maximum tokens per answer. Default: half the context, at most 512."),
    ] = None,
    temperature: options.Temperature = 0.0,
    chat_template: options.Chat = None,
    system: options.System = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Chat with a model, and switch its adapter on and off during the conversation.

    Answers appear while they are generated. Without a chat template, or with --no-chat, the model continues each line
    separately.
    """
    adapters = [adapter] if adapter else []
    mode = choose_chat(chat_template, system, adapters or [model])
    loaded, tokenizer, _ = load_steered(model, adapters, strength, trust_remote_code, half, revision=revision)
    from actshift.data import check_template
    from actshift.loading import context_length

    max_new_tokens = max_new_tokens or min(512, context_length(loaded.config, tokenizer) // 2)
    if mode.rendered:
        check_template(tokenizer)
    elif chat_template is None:
        was_plain = mode.rendered is False  # in training
        mode = replace(mode, rendered=bool(tokenizer.chat_template))
        if was_plain and mode.rendered:
            echo("It was trained on plain texts. To continue texts instead of a chat, add --no-chat.", err=True)
    saved: float = next((getattr(config, "strength", 1.0) for config in getattr(loaded, "peft_config", {}).values()), 1)
    current = saved if strength is None else strength
    conversation = Conversation(loaded, tokenizer, max_new_tokens, temperature, current, mode)
    echo(COMMANDS, err=True)
    if not mode.rendered:
        reason = "The chat template is off" if tokenizer.chat_template else "This model has no chat template"
        echo(f"{reason}: it continues each line by itself.", err=True)
    while True:
        try:
            line = input("> ").strip()
            if line in END:
                return
            if line.startswith("/"):
                echo(conversation.command(line), err=True)
            elif line:
                conversation.answer(line)
        except (EOFError, KeyboardInterrupt):  # Ctrl-D and Ctrl-C end a chat normally
            echo()
            return
        except ActshiftError as error:
            echo(f"actshift: {error}", err=True)


@dataclass
class Conversation:
    """A model with its tokenizer, the messages so far, and the state of the adapter."""

    model: Any
    tokenizer: Any
    max_new_tokens: int
    temperature: float
    strength: float
    mode: ChatMode
    adapter_off: bool = False
    messages: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def command(self, line: str) -> str:
        """Execute a command and return the adapter's new state, or the help; raise ActshiftError if that fails."""
        from actshift.tuner import set_strength

        verb, _, value = line.partition(" ")
        if verb == "/base":
            if not hasattr(self.model, "peft_config"):
                raise ActshiftError("There is no adapter to switch off. Start the chat with --adapter.")
            self.adapter_off = not self.adapter_off
        elif verb == "/strength":
            try:
                strength = float(value)
            except ValueError:
                raise ActshiftError(f"/strength needs a number, as in /strength 0.5; got {value!r}.") from None
            set_strength(self.model, strength)
            self.adapter_off, self.strength = False, strength
        else:
            if verb in ("/help", "/?"):
                return COMMANDS
            hint = did_you_mean(verb, ("/base", "/strength", *END))
            raise ActshiftError(f"There is no command {verb}{hint}. {COMMANDS}")
        return "The base model answers." if self.adapter_off else f"The adapter acts at strength {self.strength:g}."

    def answer(self, line: str) -> None:
        """Print the model's answer while it is generated, and remember it if the chat template renders it."""
        from actshift.evaluation import stream_completion

        messages = [*self.messages, {"role": "user", "content": line}]
        rendered = self.mode.rendered
        text = self.mode.render(messages if rendered else line, self.tokenizer, "The conversation")
        write, how = partial(echo, nl=False), (self.max_new_tokens, self.temperature, not rendered)
        with self.model.disable_adapter() if self.adapter_off else nullcontext():
            answer = stream_completion(self.model, self.tokenizer, text, write, *how)
        echo()
        if not answer.strip():
            echo("The answer is empty.", err=True)
        if rendered:
            self.messages = [*messages, {"role": "assistant", "content": answer}]
