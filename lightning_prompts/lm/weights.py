"""A model's weights are whole, or the model is refused.

transformers fills up what a file lacks with random numbers, and leaves out what the model of
`config.json` has no place for; it says both in a table that nobody has to read.
"""

import logging
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.quantised import parts_of

log = logging.getLogger(__name__)

# What older versions of a model kept beside its weights, and computes anew today.
COMPUTED = re.compile(r"\.(inv_freq|masked_bias|position_ids|(cos|sin)_cached)$")
# Of weights that stand for others: an adapter beside them, or in few bits.
ADAPTED = re.compile(r"(^|\.)(base_layer|lora_\w+)\.")
QUANTISED = re.compile(r"\.(qweight|qzeros|scales|g_idx|SCB|\w+_(packed|scale|scale_inv|blocks))$")
# Said here in one sentence.
ITS_REPORT = re.compile(r"LOAD REPORT|This checkpoint seem corrupted")


def read_whole(kind: Any, place: Any, name: str, unread: str = "", **options: Any) -> Any:
    """A model with all of its weights, by `from_pretrained`.

    Args:
        kind: An Auto class of transformers.
        place: Folder or hub id.
        name: What the model is called in messages, e.g. `--lm.name gpt2`.
        unread: Beginning of the names of weights that are not used, and may be missing.
        **options: Of `from_pretrained`.

    Raises:
        PromptError: If weights are missing, have another size, have no place in the model, or are
            no numbers.
        OSError, ValueError, KeyError, RuntimeError, ImportError: As `from_pretrained`.
    """
    with _without_its_report():
        model, report = kind.from_pretrained(
            place,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            **options,
        )
    if getattr(model, "_hf_peft_config_loaded", False):  # the hub id of an adapter, and peft there
        raise PromptError(
            f"{name}: it is an adapter, which changes another model; merge the two with peft's "
            "merge_and_unload, and give the folder that save_pretrained wrote of the result."
        )
    missing = {key for key in report["missing_keys"] if not unread or not key.startswith(unread)}
    _refuse_incomplete(model, missing | _empty(model), report["unexpected_keys"], name)
    if mismatched := sorted(report["mismatched_keys"]):
        key, in_file, in_model = mismatched[0]
        raise PromptError(
            f"{name}: {key} has the size {list(in_file)} in the weights and {list(in_model)} by "
            f"config.json ({len(mismatched)} differ so); take both from the same model."
        )
    _refuse_foreign(model, report["unexpected_keys"], name)
    _refuse_no_numbers(model, name)
    return model


def _refuse_incomplete(
    model: Any, missing: Collection[str], unexpected: Collection[str], name: str
) -> None:
    values = model.state_dict(keep_vars=True)
    # A tied head is its table: it has two names and is missing once.
    first_names = {id(value): key for key, value in reversed(values.items())}
    absent = {key for key in missing if first_names.get(id(values.get(key)), key) == key}
    if not absent:
        return
    place = {key: i for i, key in enumerate(values)}
    ordered = sorted(absent, key=lambda key: (place.get(key, len(place)), key))
    raise PromptError(
        f"{name}: {len(ordered)} of its {len(first_names)} weights "
        f"{'is' if len(ordered) == 1 else 'are'} missing (the first is {ordered[0]}) and would be "
        f"random numbers; {_remedy(model, ordered, unexpected)}."
    )


def _remedy(model: Any, missing: list[str], unexpected: Collection[str]) -> str:
    """What is likely wrong, from the names that the files have instead."""
    base = f"{model.base_model_prefix}."
    if any(ADAPTED.search(key) for key in unexpected):
        return "an adapter is kept apart from them: merge it with peft's merge_and_unload first"
    if any(QUANTISED.search(key) for key in unexpected):
        return "they are quantised in a way that config.json does not tell: use a plain copy"
    ends = tuple("." + key for key in (missing[0], missing[0].removeprefix(base)))
    if renamed := min((key for key in unexpected if key.endswith(ends)), default=None):
        return (
            f"the files have it as {renamed}: take what is before the model's own name off all "
            "names, or save the model itself and not what is around it"
        )
    body = [key for key in missing if key.startswith(base) and not key.startswith(f"{base}pooler.")]
    if model.base_model is not model and not body:
        if (head := model.get_output_embeddings()) is None:
            return (
                "it has no trained classification head: give a model that was trained to classify "
                "texts"
            )
        whole = "it is a model without its head: give the whole one"
        if [key for key, value in model.named_parameters() if value is head.weight] == missing:
            whole += (
                ", or, where its head is its embedding table, set tie_word_embeddings to true in "
                "config.json"
            )
        return whole
    return "get all of its files again, config.json among them, from the same model"


def _refuse_foreign(model: Any, unexpected: Collection[str], name: str) -> None:
    """Weights for which the model has no place, though they belong to its layers."""
    modules, base = dict(model.named_modules()), model.base_model_prefix
    known = {_numberless(key) for key in model.state_dict()}
    others = sorted(key for key in unexpected if not COMPUTED.search(key))
    foreign = []
    for key in others:
        # A model that was saved without its head names its weights from there.
        inside = key if key.split(".")[0] in dict(model.named_children()) else f"{base}.{key}"
        if _numberless(inside) in known or _in_a_layer(inside, modules):
            foreign.append(key)
    if foreign:
        raise PromptError(
            f"{name}: the model of its config.json has no place for {len(foreign)} of the weights "
            f"(the first is {foreign[0]}), so it would be another model; take config.json and the "
            "weights from the same one."
        )
    others = [key for key in others if key.rpartition(".")[0] not in modules]
    if others and model.get_output_embeddings() is not None:
        log.info(
            "%s: weights that are not a language model's are left out (%d, the first is %s).",
            *(name, len(others), others[0]),
        )


def _in_a_layer(key: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a weight is of a layer's module that has weights, or of one that is not there."""
    owner = key.rpartition(".")[0]
    if owner in modules:  # without weights of its own it had a mask, which is computed today
        return any(True for _ in modules[owner].parameters(recurse=False))
    while owner and owner not in modules:
        owner = owner.rpartition(".")[0]
    return any(part.isdigit() for part in owner.split("."))


def _numberless(key: str) -> tuple[str, ...]:
    return tuple("*" if part.isdigit() else part for part in key.split("."))


def _empty(model: nn.Module) -> set[str]:
    """Names of weights that nothing was put into."""
    return {key for key, value in model.state_dict().items() if value.is_meta}


def _refuse_no_numbers(model: Any, name: str) -> None:
    """Weights with NaN or infinity in them, and tables of tokens that are all zeros."""
    tables = {id(model.get_input_embeddings().weight)}
    if (head := model.get_output_embeddings()) is not None:
        tables.add(id(head.weight))
    parameters = model.named_parameters()
    for key, value in ((key, part) for key, whole in parameters for part in parts_of(whole)):
        if not value.is_floating_point() or not value.numel():
            continue
        low, high = (float(bound) for bound in torch.aminmax(value.detach()))
        if not math.isfinite(low) or not math.isfinite(high):
            larger = value.dtype == torch.float16  # most models are trained in types with more room
            fix = "load it as float32 (--lm.dtype), or use" if larger else "use"
            raise PromptError(
                f"{name}: {key} has NaN or infinite numbers as {str(value.dtype)[6:]}; {fix} an "
                "undamaged copy."
            )
        if id(value) in tables and low == high == 0:
            raise PromptError(
                f"{name}: {key} is all zeros, so every token is the same to the model; get the "
                "files again (a download that was cut off can end in zeros)."
            )


@contextmanager
def _without_its_report() -> Iterator[None]:
    """Keep transformers' table of what is missing to itself."""
    logger = logging.getLogger("transformers.modeling_utils")

    def wanted(record: logging.LogRecord) -> bool:
        return not ITS_REPORT.search(record.getMessage())

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
