"""A conversation as one text: rendered once by the tokenizer's own chat template.

What stands in a turn is marked, so that the text shows where each column and the prompt came to
stand, and whether the chat template trims white space there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from jinja2 import TemplateError

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import did_you_mean
from lightning_prompts.lm.backbone import Backbone

ROLES = ("system", "user", "assistant", "developer")
TEXT = "'{prompt} {text} It was'"  # how the two kinds of templates look, for messages
CONVERSATION = "{chat: {system: '{prompt}', user: '{text}'}}"
# Letters and digits, which no chat template changes, within white space that none writes: where
# it is gone afterwards, that of a value would be too.
SPACE = "\v"
MARK = f"{SPACE}x7Qm{{}}mQ7x{SPACE}"
MARKED = re.compile(MARK.format(r"(\d+)").replace(SPACE, f"({SPACE}?)"))
TRIMS: dict[tuple[bool, bool], Callable[[str], str]] = {
    (False, False): str,
    (True, False): str.lstrip,
    (False, True): str.rstrip,
    (True, True): str.strip,
}


class Turn(TypedDict):
    """One message of a conversation."""

    role: str
    content: str


class Conversation(TypedDict):
    """A template in turns, for the tokenizer's chat template.

    Keys:
        chat: Role to content, or a list of turns with `role` and `content`; in their order.
        variables: Of the chat template, e.g. `{enable_thinking: false}`.
    """

    chat: dict[str, str] | list[Turn]
    variables: NotRequired[dict[str, Any]]


class Part(NamedTuple):
    """A piece of fixed text, the column or prompt behind it, and what its value passes through."""

    text: str
    name: str | None = None
    trim: Callable[[str], str] = str


def turns_of(template: Mapping[str, Any]) -> list[Turn]:
    """The turns of a conversation, in order.

    Raises:
        PromptError: If it is none.
    """
    chat = template.get("chat")
    turns: Any = chat
    if isinstance(chat, Mapping):
        turns = [{"role": role, "content": content} for role, content in chat.items()]
    whole = isinstance(turns, list) and all(
        isinstance(turn, Mapping)
        and turn.keys() == {"role", "content"}
        and all(isinstance(text, str) for text in turn.values())
        for turn in turns
    )
    if not turns or not whole or template.keys() - {"chat", "variables"}:
        raise PromptError(
            f"Template {dict(template)!r} is no conversation; write {CONVERSATION}, with a list of "
            f"{{role: ..., content: ...}} where a role comes twice, or one text such as {TEXT}."
        )
    for role in (turn["role"] for turn in turns):
        if role not in ROLES:
            raise PromptError(f"A turn of the template is of {role!r}{did_you_mean(role, ROLES)}")
    return list(turns)


def render(
    turns: Sequence[tuple[str, Sequence[Part]]], variables: Mapping[str, Any], lm: Backbone
) -> list[Part]:
    """Let a chat template write a conversation down, up to where the model answers.

    That is the beginning of the assistant's turn, or where the last turn is the assistant's own,
    the end of what it says.

    Args:
        turns: Role and content of each.
        variables: Of the chat template.
        lm: Gives the tokenizer.

    Returns:
        The text's parts, without a BOS where `lm.prefix_ids` puts one before every text.

    Raises:
        PromptError: If the tokenizer has no chat template, it refuses the conversation or leaves a
            turn out, or its BOS and the model's do not go together.
    """
    names = [(p.name, role) for role, parts in turns for p in parts if p.name is not None]
    marks = map(MARK.format, range(len(names)))
    messages = [
        {
            "role": role,
            "content": "".join(p.text + ("" if p.name is None else next(marks)) for p in parts),
        }
        for role, parts in turns
    ]
    text = _without_bos(_applied(messages, variables, lm), lm)
    pieces = MARKED.split(text)  # text, space, number, space, text, ...
    found = [int(number) for number in pieces[2::4]]
    for i, (name, role) in enumerate(names):
        if found.count(i) != 1 and (name == "prompt" or i not in found):
            raise PromptError(
                f"The chat template of {lm.label} writes {{{name}}} of the {role} turn "
                f"{found.count(i)} times, not once; put it into another turn."
            )
    texts = zip(pieces[0::4], pieces[1::4], found, pieces[3::4], strict=False)
    parts = [Part(text, names[i][0], TRIMS[not left, not right]) for text, left, i, right in texts]
    return [*parts, Part(pieces[-1])]


def writes_apart(text: str, lm: Backbone) -> Callable[[str], str]:
    """What keeps a row's text from ending a turn: its special tokens with a space inside.

    Args:
        text: Rendered; added tokens that stand in it count as special too.
        lm: Gives the tokenizer.
    """
    added = lm.tokenizer.added_tokens_decoder.values()
    special = {t.content for t in added if t.special or t.content in text}
    tokens = sorted((t for t in special if len(t.strip()) > 1), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, tokens)) or "(?!)")
    return lambda value: pattern.sub(lambda m: f"{m[0][0]} {m[0][1:]}", value)


def _applied(messages: list[Any], variables: Mapping[str, Any], lm: Backbone) -> str:
    tokenizer, text = lm.tokenizer, f"write the template as one text, such as {TEXT}"
    if not tokenizer.chat_template:
        raise PromptError(
            f"{lm.label} has no chat template, so no conversation can be written for it; take a "
            f"model that was trained on conversations (mostly -Instruct, -chat or -it), or {text}."
        )
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none is the default
        known = ", ".join(sorted(tokenizer.chat_template))
        raise PromptError(
            f"{lm.label} has several chat templates ({known}) and no default; {text}."
        ) from error
    if unknown := [name for name in variables if not re.search(rf"\b{re.escape(name)}\b", source)]:
        raise PromptError(
            f"The chat template of {lm.label} has no variable {unknown[0]!r}; leave it out of "
            "--data.template."
        )
    answers = messages[-1]["role"] == "assistant"
    try:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=not answers,
                continue_final_message=answers,
                **variables,
            )
        )
    except (TemplateError, ValueError, TypeError) as error:
        said = " ".join(str(error).split()).rstrip(".!")
        system = any(message["role"] == "system" for message in messages)
        fix = "put what the system turn says into the user turn" if system else "change its turns"
        raise PromptError(
            f"The chat template of {lm.label} refuses the conversation ({said}); {fix}."
        ) from error


def _without_bos(text: str, lm: Backbone) -> str:
    """The text without the BOS that the model gets before every text, so that it has one."""
    if not lm.prefix_ids:
        return text
    bos = lm.decode(lm.prefix_ids)
    rest = text.removeprefix(bos)
    if rest != text and lm.tokenize([text])[0] == lm.prefix_ids + lm.tokenize([rest])[0]:
        return rest
    raise PromptError(
        f"The chat template of {lm.label} does not write the BOS {bos!r} as the tokenizer puts it "
        "before a text; set --lm.add_bos false, and the conversation has what its own template "
        "writes."
    )
