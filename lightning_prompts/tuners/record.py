"""What a prompt belongs to: the part of a run's record that every checkpoint carries."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.answers import AnswerScore
from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.quantised import Quantisation
from lightning_prompts.lm.verbalizer import Words

log = logging.getLogger(__name__)

VERSION = "record_version"  # its key, wherever a record is written
WRITTEN = 1
"""The version that is written. What has none was written before there were versions."""
UNTRAINED = ("ManualPrompt", "ImportedPrompt")  # which no rows of the task chose
# Names of fields then, and what was not always written.
EARLIER = {"token_ids": "ids", "nats": "token_nats", "distances": "token_distances"}
ABSENT: Mapping[str, Any] = {
    **{"verbalizer": {}, "tokens": [], "in_use": "", "averaged_by": None},
    **{"step": 0, "metrics": {}},
}


@dataclass(frozen=True)
class LMRecord:
    """The language model of a prompt.

    Attributes:
        name: As it was given.
        revision: Its commit on the hub, None where it has none.
        label: For people.
        fingerprint: Of its weights.
        kin: Of what quantisation leaves of them as it was.
        quantize: How it was quantised when it was read, None where it was not.
        add_bos: Whether texts begin with its BOS token, None where that was not written.
    """

    label: str
    fingerprint: str = ""
    name: str = ""
    revision: str | None = None
    kin: str = ""
    quantize: Quantisation | None = None
    add_bos: bool | None = None

    @classmethod
    def of(cls, lm: FrozenLM) -> Self:
        """A language model's."""
        weights = (lm.label, lm.fingerprint, lm.name, lm.revision, lm.kin, lm.quantize)
        return cls(*weights, add_bos=bool(lm.prefix_ids))

    @property
    def begins(self) -> Literal["auto"] | bool:
        """What to give as `add_bos` to read it as it was."""
        return "auto" if self.add_bos is None else self.add_bos

    def fits(self, other: Self) -> bool:
        """Whether a prompt of one model is one of the other's: the same, or it quantised.

        Quantised weights are other weights, so that much is said.
        """
        if self.fingerprint == other.fingerprint:
            return True
        # Two that are both whole are two trainings, which may have the same embeddings.
        quantised = self.quantize or other.quantize
        if not quantised or not self.kin or self.kin != other.kin:
            return False
        log.warning(
            "The prompt was made with %s, and is read by %s: the same model, with other weights "
            "where one is quantised, so what it was measured at will differ a little.",
            *(self.label, other.label),
        )
        return True


@dataclass(kw_only=True)
class PromptRecord:
    """A prompt and its setting.

    Attributes:
        tuner: Class of the tuner: SoftPrompt, PEZ, ...
        lm: The language model.
        template: Where text and prompt sit, as it was given.
        rendered: What the chat template made of a conversation, None where it is none.
        verbalizer: Label to answer, or to several.
        answer_score: How the tokens of an answer make its score.
        text: Of the prompt's tokens.
        ids: Of these tokens.
        tokens: Each of them decoded alone.
        token_nats: Surprise of each token under the task's model, None where it was not measured.
        token_distances: Cosine distance of each token to its vector, None where it was not
            measured, or tokens are the prompt.
        in_use: Whether `vectors` are the prompt in use, or `tokens`; empty where it is not known.
        averaged_by: The callback that the prompt is an average of, None if it is none.
        step: Training steps that made it.
        metrics: By the names they are logged under.
    """

    tuner: str
    lm: LMRecord
    template: str | Conversation
    rendered: str | None = None
    verbalizer: Words
    answer_score: AnswerScore = "sum"
    text: str
    ids: list[int]
    tokens: list[str]
    token_nats: list[float] | None = None
    token_distances: list[float] | None = None
    in_use: str
    averaged_by: str | None
    step: int
    metrics: dict[str, float]

    @property
    def template_text(self) -> str:
        """The template on one line; of a conversation its JSON."""
        given = self.template
        return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)

    @property
    def soft_in_use(self) -> bool:
        """Whether vectors are the prompt in use."""
        return self.in_use == "vectors"

    @property
    def learned(self) -> bool:
        """Whether rows of the task chose it; a written or an imported prompt none did."""
        return self.tuner not in UNTRAINED

    def to_json(self) -> dict[str, Any]:
        """In types that JSON knows and that load without pickle; without what is not known."""
        content, unknown = asdict(self), dict(_unknown(self))
        known = {k: v for k, v in content.items() if k not in unknown or v != unknown[k]}
        return {VERSION: WRITTEN, **known}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `to_json` wrote, in this version or an earlier one.

        Raises:
            PromptError: If it is none.
        """
        content = current(content)
        try:
            known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
            return cls(**{**known, "lm": LMRecord(**content["lm"])})
        except (KeyError, TypeError, ValueError) as error:
            raise not_a_record(error) from error


def current(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record, or a part of one, under the names that this version writes.

    Raises:
        PromptError: If a later version wrote it.
    """
    version = content.get(VERSION, 0)
    if version > WRITTEN:
        raise PromptError(
            f"The record is of version {version}, and this lightning-prompts knows those up to "
            f"{WRITTEN}; install the one that wrote it: pip install --upgrade lightning-prompts."
        )
    found = {**ABSENT, **{EARLIER.get(name, name): value for name, value in content.items()}}
    if isinstance(lm := content.get("lm"), str):
        names = ("name", "fingerprint", "revision")
        parts = {name: content.get(f"lm_{name}") for name in names}
        found["lm"] = {"label": lm, **{name: part for name, part in parts.items() if part}}
    if "soft_in_use" in content:
        found["in_use"] = "vectors" if content["soft_in_use"] else "tokens"
    return found


def not_a_record(error: Exception) -> PromptError:
    """What to say of content that is damaged, or something else."""
    return PromptError(f"Not a record as lightning-prompts writes it ({error!r}); run it again.")


def _unknown(record: PromptRecord) -> Iterator[tuple[str, Any]]:
    """Fields that may be left open, with what they are then."""
    for each in fields(record):
        if each.default_factory is not MISSING:
            yield each.name, each.default_factory()
        elif each.default is not MISSING:
            yield each.name, each.default


def refuse_other_setting(
    saved: PromptRecord | None, own: PromptRecord, lengths: tuple[int, int]
) -> PromptRecord:
    """Compare a checkpoint's record with the module's own.

    Args:
        saved: Of the checkpoint.
        own: Of the module.
        lengths: Fewest and most tokens that the module's prompt may have.

    Returns:
        The checkpoint's.

    Raises:
        PromptError: At the first difference, with both values.
    """
    if saved is None:
        raise PromptError(
            "The checkpoint has no prompt record; give one that lightning-prompts saved."
        )
    least, most = lengths
    length = len(saved.ids)
    own_length: int | str = length
    if not least <= length <= most:
        own_length = least if least == most else f"{least} to {most}"
    both = "--model.min_length and --model.max_length"
    for name, option, there, here in (
        ("tuner", "--model", saved.tuner, own.tuner),
        *settings(saved, own),
        ("prompt length", both if least < most else "--model.prompt_length", length, own_length),
    ):
        if there != here:
            raise PromptError(
                f"The checkpoint's {name} is {there!r} but the configuration's is {here!r}; "
                f"set {option} to the checkpoint's, or give another checkpoint."
            )
    return saved


def settings(saved: PromptRecord, own: PromptRecord) -> Iterator[tuple[str, str, Any, Any]]:
    """What decides how a prompt is read: its name, its option, the saved prompt's and our own.

    Where they are equal, a prompt of one setting is one of the other.
    """
    models = [f"{record.lm.label} (weights {record.lm.fingerprint})" for record in (saved, own)]
    same_model = saved.lm.fits(own.lm)
    yield "language model", "--lm.name", models[0], models[0] if same_model else models[1]
    yield "template", "--data.template", saved.template_text, own.template_text
    yield "rendered conversation", "--lm.name", saved.rendered, own.rendered
    yield "verbalizer", "--data.verbalizer", saved.verbalizer, own.verbalizer
    yield "answers' score", "--data.answer_score", saved.answer_score, own.answer_score
