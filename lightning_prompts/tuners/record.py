"""What a prompt belongs to: written into every checkpoint and checked when one is loaded."""

from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tuners.views import PromptViews


def prompt_record(tuner: PromptViews) -> dict[str, Any]:
    """The tuner's setting and present prompt, in plain types that load without pickle."""
    lm, verbalizer = tuner.lm, tuner.verbalizer
    ids = tuner.hard_prompt().tolist()
    record: dict[str, Any] = {
        "tuner": type(tuner).__name__,
        "lm": lm.label,
        "lm_name": lm.name,
        "lm_revision": lm.revision,
        "lm_fingerprint": lm.fingerprint,
        "template": tuner.template.text,
        "verbalizer": dict(zip(verbalizer.labels, verbalizer.words, strict=True)),
        "prompt_length": len(ids),
        "token_ids": ids,
        "text": lm.decode(ids),
        "tokens": lm.token_strings(ids),
        "in_use": "vectors" if tuner.soft_in_use else "tokens",
        "averaged_by": tuner.averaged_by,
    }
    if (trainer := tuner._trainer) is not None:
        record["step"] = trainer.global_step
        record["metrics"] = {k: float(v) for k, v in trainer.callback_metrics.items()}
    return record


def refuse_other_setting(
    saved: dict[str, Any] | None, own: dict[str, Any], lengths: tuple[int, int] | None = None
) -> None:
    """Compare a checkpoint's record with the module's own.

    Args:
        saved: Of the checkpoint.
        own: Of the module.
        lengths: Fewest and most tokens that the module's prompt may have; by default its own.

    Raises:
        PromptError: At the first difference, with both values.
    """
    if saved is None:
        raise PromptError(
            "The checkpoint has no prompt record; give one that lightning-prompts saved."
        )
    flags = {
        "tuner": "--model",
        "lm_fingerprint": "--lm.name",
        "template": "--data.template",
        "verbalizer": "--data.verbalizer",
        "prompt_length": "--model.prompt_length",
    }
    if lengths is not None and lengths[0] < lengths[1]:
        flags["prompt_length"] = "--model.min_length and --model.max_length"
        fits = lengths[0] <= saved["prompt_length"] <= lengths[1]
        shown = f"{lengths[0]} to {lengths[1]}"
        own = {**own, "prompt_length": saved["prompt_length"] if fits else shown}
    for key, flag in flags.items():
        if saved[key] != own[key]:
            there, here = saved[key], own[key]
            if key == "lm_fingerprint":
                there, here = (f"{r['lm']} (weights {r[key]})" for r in (saved, own))
            name = {"lm_fingerprint": "language model"}.get(key, key.replace("_", " "))
            raise PromptError(
                f"The checkpoint's {name} is {there!r} but the configuration's is {here!r}; "
                f"set {flag} to the checkpoint's, or give another checkpoint."
            )
