"""Models that were split into several `.gguf` files: which belong together, and joining them."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError

# How llama.cpp names the parts; it opens them by these names too.
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
# Of Llama 3.1 and later; of Phi 3.
ROPE_FACTORS = re.compile(r"rope_(freqs|factors_(long|short))\.weight")


def all_parts(path: Path, name: str) -> tuple[str, tuple[Path, ...]]:
    """The model's own name and its files in order, from any one of them.

    Args:
        path: An existing `.gguf` file.
        name: What the model is called in messages.

    Raises:
        PromptError: If a part is not there.
    """
    matched = PART.fullmatch(path.name)
    if matched is None:
        return path.stem, (path,)
    stem, count = matched["stem"], int(matched["count"])
    parts = tuple(
        path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)
    )
    if absent := [part.name for part in parts if not part.is_file()]:
        raise PromptError(
            f"{name}: the model was split into {count} files, of which {len(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} not there (the first is {absent[0]}); put all "
            "of them into one folder."
        )
    return stem, parts


def whole_file(parts: Sequence[Path], name: str, folder: Path) -> Path:
    """One `.gguf` file with all tensors: the only part, or all parts or pieces joined.

    transformers reads the first part alone, and makes the other weights up.

    Args:
        parts: From `all_parts`, or the pieces of one file, whose names end in no `.gguf`.
        name: What the model is called in messages.
        folder: Where a joined file is written.

    Raises:
        PromptError: If the parts are not those of one model, or it scales its rotary positions.
        OSError, ValueError, KeyError: If a part is damaged.
    """
    from gguf import GGUFReader

    if parts[-1].suffix != ".gguf":
        parts = [_put_together(parts, folder / "whole.gguf")]
    try:
        readers = [GGUFReader(part) for part in parts]
    except (IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError("it is damaged, or was cut off") from error
    counts = [_number(reader, "split.count", 1) for reader in readers]
    if len(parts) == 1 and counts[0] > 1:
        number = _number(readers[0], "split.no", 0) + 1
        raise PromptError(
            f"{name}: the file is part {number} of {counts[0]} of a model; put all parts into one "
            f"folder, named as they were made: MODEL-{number:05d}-of-{counts[0]:05d}.gguf."
        )
    _refuse_scaled_positions(readers, name)
    if len(parts) == 1:
        return parts[0]
    numbers = [_number(reader, "split.no", -1) for reader in readers]
    found = sum(len(reader.tensors) for reader in readers)
    tensors = {tensor.name for reader in readers for tensor in reader.tensors}
    expected = _number(readers[0], "split.tensors.count", found)
    if (
        set(counts) != {len(parts)}
        or numbers != list(range(len(parts)))
        or not found == len(tensors) == expected
    ):
        raise PromptError(
            f"{name}: its {len(parts)} files are not the parts of one model ({found} weights in "
            f"them, {expected} by the first); get all of them from one place."
        )
    return _join(readers, folder / "joined.gguf")


def _refuse_scaled_positions(readers: Sequence[Any], name: str) -> None:
    """Both ways of saying it are dropped by transformers 5.23, whose model turns otherwise."""
    fields = [field for reader in readers for field in reader.fields.values()]
    given = {
        key: field.contents()
        for field in fields
        for key in ("type", "factor")
        if field.name.endswith(f".rope.scaling.{key}")
    }
    kind, factor = given.get("type", "linear"), given.get("factor", 1.0)
    scaled = kind != "none" and factor not in (0, 1)
    tensors = (tensor for reader in readers for tensor in reader.tensors)
    if scaled or any(ROPE_FACTORS.fullmatch(t.name) and (t.data != 1).any() for t in tensors):
        what = f"{kind}, factor {factor:g}" if scaled else "a factor for each frequency"
        raise PromptError(
            f"{name}: the file scales the model's rotary positions ({what}), which transformers "
            "leaves out, so it would be another model; give a folder or hub id with the model's "
            "own config.json and safetensors."
        )


def _put_together(pieces: Sequence[Path], path: Path) -> Path:
    """Write the bytes of pieces one after another."""
    with path.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as file:
                shutil.copyfileobj(file, whole)
    return path


def _join(readers: Sequence[Any], path: Path) -> Path:
    """Write the first part's description and everybody's tensors, one at a time."""
    import gguf

    first = readers[0]
    architecture = first.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(path, architecture, endianess=first.endianess)
    for field in first.fields.values():
        # The writer writes these itself; the file is no part any more.
        if field.name.startswith(("GGUF.", "split.")) or (
            field.name == gguf.Keys.General.ARCHITECTURE
        ):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    for tensor in tensors:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(tensor.data, tensor_endianess=first.endianess)
    writer.close()
    return path


def _number(reader: Any, key: str, default: int) -> int:
    field = reader.get_field(key)
    return default if field is None else int(field.contents())
