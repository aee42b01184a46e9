"""Where a language model's files are: the hub, a local folder, a `.gguf` file, or a package."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import looks_like_path
from lightning_prompts.lm.gguf_parts import all_parts
from lightning_prompts.lm.packaged import PACKAGED

# Of what is kept of converted files. The first did not see to it that a model was whole, the second
# that its positions are scaled as the file says.
CONVERSION = 3


@dataclass(frozen=True)
class ModelSource:
    """A language model's files, found but not yet read.

    Attributes:
        location: Hub id, local folder, `.gguf` file (of a split model, the first), or a packaged
            model's name.
        kind: How to read `location`.
        label: The name that people read, in tables and in `prompt.json`.
        revision: Hub revision as asked for, or the sha256 of a `.gguf` file, or None.
        parts: The `.gguf` files, in order: one, or as many as the model was split into, or the
            pieces that packages carry of one.
        conversion: What dequantising a `.gguf` file takes.
        option: What names the model on the command line.
    """

    location: str
    kind: str  # "hub" | "folder" | "gguf"
    label: str
    revision: str | None
    parts: tuple[Path, ...] = ()
    conversion: str = "SmolLM2's 98 MB take 20 s, 1.2 GB of memory, 538 MB of disk"
    option: str = "--lm.name"

    @property
    def given(self) -> str:
        """How the model was asked for, for messages."""
        return f"{self.option} {self.location}"


def find_model(name: str, revision: str | None = None, option: str = "--lm.name") -> ModelSource:
    """Resolve a model's name without reading weights.

    Args:
        name: As given by `option`.
        revision: Of a model of the hub.
        option: What names the model on the command line, for messages.

    Raises:
        PromptError: If a path does not exist or is not a model, or a model's packages are missing.
    """
    if name in PACKAGED:
        packaged = PACKAGED[name]
        files = packaged.files(option, name)
        source = _gguf(files, packaged.label, name, revision, option)
        packaged.check(str(source.revision), option, name)
        return replace(source, location=name, conversion=packaged.conversion)
    path = Path(name).expanduser()
    if name.endswith(".gguf"):
        if not path.is_file():
            raise PromptError(
                f"{option} {name}: no such GGUF file; give the path of an existing one."
            )
        stem, parts = all_parts(path, f"{option} {name}")
        return _gguf(parts, f"{stem} (dequantised)", name, revision, option)
    if name and path.is_dir():
        refuse_adapter(path, f"{option} {name}")
        if not (path / "config.json").is_file():
            raise PromptError(
                f"{option} {name}: the folder has no config.json; give a folder written by "
                "save_pretrained, with the tokenizer's files beside the weights."
            )
        if revision is not None:
            raise PromptError(
                f"--lm.revision {revision}: {name} is a local folder, which has no revisions; "
                "leave --lm.revision out, it is for models of the hub."
            )
        return ModelSource(str(path), "folder", path.resolve().name, revision, option=option)
    # A Hub id is at most "owner/name"; anything longer or rooted was meant as a path.
    if looks_like_path(name) or not name:
        raise PromptError(
            f"{option} {name!r}: no such folder; give an existing folder, a .gguf file, "
            f"a Hub id such as gpt2, or {' or '.join(PACKAGED)}."
        )
    return ModelSource(name, "hub", name, revision, option=option)


def converted_folder(source: ModelSource) -> Path:
    """Folder in the user's cache that keeps a `.gguf` file converted to safetensors."""
    return cache_folder() / "gguf" / f"{str(source.revision)[:16]}-{CONVERSION}"


def refuse_adapter(folder: Path, name: str) -> None:
    """Refuse a folder with an adapter, which transformers applies where peft is installed.

    Args:
        folder: Of a model.
        name: What the model is called in messages.

    Raises:
        PromptError: If there is one, beside a model or alone.
    """
    if (folder / "adapter_config.json").is_file():
        raise PromptError(
            f"{name}: the folder holds an adapter (adapter_config.json), which changes a model; "
            "merge the two with peft's merge_and_unload, and give the folder that save_pretrained "
            "wrote of the result."
        )


def cache_folder() -> Path:
    """The user's cache: `LIGHTNING_PROMPTS_CACHE`, else the platform's cache folder."""
    if given := os.environ.get("LIGHTNING_PROMPTS_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lightning-prompts"


def _gguf(
    parts: tuple[Path, ...], label: str, name: str, revision: str | None, option: str
) -> ModelSource:
    """A file's revision is its sha256; another one was asked for in vain."""
    digest = _sha256(parts)
    if revision not in (None, digest):
        raise PromptError(
            f"--lm.revision {revision}: {name} is a file with the revision (sha256) {digest}; "
            "leave --lm.revision out, it is for models of the hub."
        )
    return ModelSource(str(parts[0]), "gguf", label, digest, parts, option=option)


def _sha256(parts: tuple[Path, ...]) -> str:
    """Of all bytes, one file after another."""
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
