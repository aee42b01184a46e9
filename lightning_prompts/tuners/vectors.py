"""Prompt vectors that were learned elsewhere: an adapter of PEFT, or a tensor in a file."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.hub import offline_unless_reachable
from lightning_prompts.lm.frozen import FrozenLM

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ADAPTER_KEY = "prompt_embeddings"  # of the vectors in PEFT's file
BOS_FIRST = "begins_with_bos"  # in the metadata of an adapter that `export` wrote
TENSORS = (".safetensors", ".pt", ".pth", ".bin")
# Whose file has the vectors that stand before the text, whatever made them.
VECTORS = ("PROMPT_TUNING", "P_TUNING", "CPT")
# What others under the same key are, which is no prompt of vectors.
OTHERS = {
    "PREFIX_TUNING": "keys and values of every layer",
    "CARTRIDGE": "keys and values of every layer",
    "MULTITASK_PROMPT_TUNING": "a prompt that is multiplied by factors of each task",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Vectors:
    """Vectors of a prompt, as a file has them.

    Attributes:
        rows: [P, H] float32.
        adapter: Whether PEFT made them, which puts them before everything, BOS too.
        base: The language model that they were learned for, where the file says so.
        bos_first: Whether the first is BOS, as `export` writes it where a model's texts begin with
            one: then texts have none behind the prompt. PEFT's own text start may look the same.
    """

    rows: Tensor
    adapter: bool = False
    base: str | None = None
    bos_first: bool = False


def is_hub_id(given: str) -> bool:
    """Whether a text can name a repository of the hub: `owner/name`, without a space.

    >>> is_hub_id("me/sst2-prompt"), is_hub_id(" and/or"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(given) is not None


def read_vectors(where: str) -> Vectors:
    """Read prompt vectors; nothing that a file holds is run.

    Args:
        where: The folder or hub id of an adapter of PEFT, or a file (.safetensors, .pt, .pth, .bin)
            with a tensor [P, H], alone or under a name.

    Raises:
        PromptError: If there are none, they are damaged, or of a method that learns something else.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        if not (path / ADAPTER_CONFIG).is_file():
            raise PromptError(
                f"{where}: the folder has no {ADAPTER_CONFIG}; give one that PEFT's "
                "save_pretrained wrote."
            )
        return _read_adapter(path, where)
    if path.is_file():
        if path.suffix not in TENSORS:
            raise PromptError(
                f"{where}: no file of tensors; give one of {', '.join(TENSORS)}, or the folder of "
                "an adapter."
            )
        if (path.parent / ADAPTER_CONFIG).is_file() and path.name in ADAPTER_WEIGHTS:
            return _read_adapter(path.parent, where)
        return Vectors(_checked(_only(_tensors(path), where), where))
    if is_hub_id(where):
        return _read_adapter(_fetched(where), where)
    raise PromptError(f"{where}: no such file or folder; give the folder of an adapter, or a file.")


def fitting_rows(found: Vectors, where: str, lm: FrozenLM) -> Tensor:
    """[P, H] The prompt's vectors, without the BOS that `export` puts before them.

    Args:
        found: As read.
        where: From where, for the message.
        lm: The language model that is to read them.

    Raises:
        PromptError: If they are of a model of another width, or fill all of its positions.
    """
    rows, width = found.rows, found.rows.shape[1]
    if width != lm.hidden_size:
        of = f", as {found.base} has" if found.base else ""
        raise PromptError(
            f"{where}: its vectors have {width} numbers{of}, and those of {lm.label} have "
            f"{lm.hidden_size}; set --lm.name to the model that they were learned for."
        )
    if len(rows) >= lm.max_positions:
        raise PromptError(
            f"{where}: a prompt of {len(rows)} vectors leaves no room in the {lm.max_positions} "
            f"positions of {lm.label}; give a shorter one."
        )
    return rows[1:] if found.bos_first and lm.prefix_ids else rows


def _read_adapter(folder: Path, where: str) -> Vectors:
    config = _config(folder / ADAPTER_CONFIG, where)
    kind = str(config.get("peft_type"))
    if kind not in VECTORS:
        what = OTHERS.get(kind, "other weights of the model")
        raise PromptError(
            f"{where}: an adapter of {kind}, which learns {what} and no vectors before the text; "
            f"give one of {', '.join(VECTORS)}."
        )
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise PromptError(
            f"{where}: an adapter for {task}, whose answers are not a language model's next token; "
            "give one that was trained with task_type CAUSAL_LM."
        )
    file = next((p for name in ADAPTER_WEIGHTS if (p := folder / name).is_file()), None)
    if file is None:
        raise PromptError(
            f"{where}: beside its {ADAPTER_CONFIG} lies no {' or '.join(ADAPTER_WEIGHTS)}; copy "
            "the whole folder."
        )
    tensors = _tensors(file)
    if ADAPTER_KEY not in tensors:
        raise PromptError(
            f"{file}: has no {ADAPTER_KEY}, under which PEFT keeps a prompt's vectors; save the "
            "adapter again with its save_pretrained."
        )
    rows = _checked(tensors[ADAPTER_KEY], str(file))
    if config.get("num_virtual_tokens") not in (None, len(rows)):
        raise PromptError(
            f"{where}: its {ADAPTER_CONFIG} says {config['num_virtual_tokens']} virtual tokens, "
            f"and {file.name} has {len(rows)}; copy both files of one adapter."
        )
    base = config.get("base_model_name_or_path")
    return Vectors(rows, True, str(base) if base else None, _says_bos(file))


def _config(path: Path, where: str) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PromptError(
            f"{where}: its {ADAPTER_CONFIG} is not readable as JSON; copy the adapter again."
        ) from error
    if not isinstance(content, Mapping):
        raise PromptError(f"{where}: its {ADAPTER_CONFIG} is no adapter's; copy it again.")
    return content


def _fetched(name: str) -> Path:
    """The folder in the hub's cache that has an adapter's files."""
    from huggingface_hub import snapshot_download

    with offline_unless_reachable() as reachable:
        try:
            return Path(snapshot_download(name, allow_patterns=[ADAPTER_CONFIG, *ADAPTER_WEIGHTS]))
        except Exception as error:  # whatever the library raises
            cause = first_line(error) if reachable else "the hub cannot be reached"
            raise PromptError(
                f"{name}: no such file or folder, and as an adapter of the hub it was not loaded "
                f"({cause}); check the name and the network, give a local copy, or where it is a "
                "text, begin it with a space."
            ) from error


def _tensors(path: Path) -> Mapping[str, Any]:
    """By name, the tensors of a file; the one of a file without names under an empty one."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged byte may raise anything
        raise PromptError(
            f"{path}: damaged, or more than tensors, which are all that is read; save the vectors "
            "alone, for example with safetensors."
        ) from error
    if isinstance(content, Mapping):
        inner = content.get("state_dict")
        return inner if isinstance(inner, Mapping) else content
    return {"": content}


def _says_bos(path: Path) -> bool:
    """Whether a readable file of an adapter says that its first vector is BOS."""
    if path.suffix != ".safetensors":
        return False
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get(BOS_FIRST) == "true"


def _only(tensors: Mapping[str, Any], where: str) -> Any:
    """The prompt among the tensors of a file."""
    for name in (ADAPTER_KEY, "prompt", ""):
        if name in tensors:
            return tensors[name]
    found = [name for name, each in tensors.items() if isinstance(each, Tensor) and each.ndim == 2]
    if len(found) != 1:
        raise PromptError(
            f"{where}: has {len(found)} matrices, and none is called {ADAPTER_KEY} or prompt; "
            "save the vectors alone, or under one of these names."
        )
    return tensors[found[0]]


def _checked(rows: Any, where: str) -> Tensor:
    """[P, H] in float32."""
    if isinstance(rows, Tensor) and rows.ndim == 3 and len(rows) == 1:
        rows = rows[0]
    if not isinstance(rows, Tensor) or rows.ndim != 2 or not rows.is_floating_point():
        shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise PromptError(
            f"{where}: a prompt is a matrix of numbers with a row for each token, and this is "
            f"{shape}; save its vectors as [tokens, hidden size]."
        )
    if not rows.numel() or not rows.isfinite().all():
        what = "no rows" if not rows.numel() else "numbers that are not finite"
        raise PromptError(f"{where}: the prompt has {what}; train it again.")
    return rows.detach().float().clone()
