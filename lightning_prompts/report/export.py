"""A prompt as files that others read, with a model card: adapter of PEFT, text, tensors, JSON."""

import importlib.util
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_prompts.files.atomic_files import write_json, write_text
from lightning_prompts.files.errors import PromptError
from lightning_prompts.report.card import card
from lightning_prompts.report.snippet import EXAMPLE, Format, run, snippet
from lightning_prompts.runs.folder import require_writable
from lightning_prompts.runs.prompt import Prompt
from lightning_prompts.tuners.vectors import (
    ADAPTER_CONFIG,
    ADAPTER_KEY,
    ADAPTER_WEIGHTS,
    BOS_FIRST,
)

CARD = "README.md"


def export(prompt: Prompt, kind: Format, folder: Path, licence: str | None = None) -> str:
    """Write a prompt's files, the program that uses them, and their model card.

    The program is run on the files first; they come to stand in the folder all at once.

    Args:
        prompt: Of `load_prompt`.
        kind: `peft`, `text`, `safetensors` or `json`.
        folder: New, or empty.
        licence: For the card.

    Returns:
        A sentence on what the program was found to do.

    Raises:
        PromptError: If PEFT would not read the prompt as it was learned, the folder has something
            in it or cannot be written, or the program does not answer as the prompt does.
    """
    refuse(prompt, kind)
    require_empty(folder)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    try:
        draft.mkdir(parents=True)
        _write(prompt, kind, draft)
        program = snippet(prompt, kind)
        write_text(draft / EXAMPLE, program)
        if kind == "peft" and importlib.util.find_spec("peft") is None:
            ran = "This program was not run when it was written: peft was not installed."
        else:
            far = run(draft, prompt, kind)
            ran = (
                "Run on these files before it was written; the largest difference to a "
                f"probability of lightning-prompts was {far:.1g}."
            )
        write_text(draft / CARD, card(prompt, kind, program, ran, licence))
        shutil.rmtree(draft / "__pycache__", ignore_errors=True)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return ran


def require_empty(folder: Path) -> None:
    """Refuse a folder that has something in it, or cannot be written.

    Raises:
        PromptError: If so.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PromptError(f"--output {folder}: something is there; name a new or empty folder.")
    require_writable(folder, "name another with --output")


def refuse(prompt: Prompt, kind: Format) -> None:
    """Refuse a prompt that PEFT would read otherwise.

    Raises:
        PromptError: If so, with the reason.
    """
    template = prompt.template
    if kind != "peft" or template.shared_before:
        return
    raise PromptError(
        f"PEFT puts a prompt before everything else, and the template {template.given!r} has a "
        "column before it, so that the adapter would answer otherwise; give --format safetensors, "
        "json or text."
    )


def _write(prompt: Prompt, kind: Format, folder: Path) -> None:
    rows = prompt.embeddings.detach().float().cpu().contiguous()
    if kind == "text":
        write_text(folder / "prompt.txt", prompt.text)
    elif kind == "json":
        vectors = {"embeddings": rows.tolist()} if prompt.record.soft_in_use else {}
        write_json(folder / "prompt.json", {**prompt.record.to_json(), **vectors})
    elif kind == "safetensors":
        known = {"ids": json.dumps(prompt.ids), "text": prompt.text}
        _write_tensors(folder / "prompt.safetensors", rows, known)
    else:
        rows = torch.cat([_before(prompt), rows])
        write_json(folder / ADAPTER_CONFIG, _adapter(prompt, len(rows)))
        known = {BOS_FIRST: "true"} if prompt.template.prefix_ids else {}
        _write_tensors(folder / ADAPTER_WEIGHTS[0], rows, known)


def _write_tensors(path: Path, rows: Tensor, known: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file({ADAPTER_KEY: rows}, path, metadata={"format": "pt", **known})


@torch.no_grad()
def _before(prompt: Prompt) -> Tensor:
    """[n, H] What the model reads before the prompt: BOS where it wants one, and a fixed text."""
    ids = prompt.template.encode(dict.fromkeys(prompt.template.columns, "")).before_ids
    device = prompt.embeddings.device
    return prompt.lm.embed(torch.tensor(ids, dtype=torch.long, device=device)).float().cpu()


def _adapter(prompt: Prompt, length: int) -> dict[str, Any]:
    """PEFT's configuration of prompt tuning, as its `save_pretrained` writes it."""
    config = prompt.lm.model.config.get_text_config()
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": prompt.record.lm.name,
        "revision": prompt.record.lm.revision if "/" in prompt.record.lm.name else None,
        "inference_mode": True,
        "num_virtual_tokens": length,
        "token_dim": prompt.embeddings.shape[1],
        "num_transformer_submodules": 1,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
        # Where it starts does not matter to what is read from the file.
        "prompt_tuning_init": "RANDOM",
    }
