"""Which files of a folder have the rows of a split.

A folder may be one that `datasets` saved, a clone of a data set's repository, whose README.md may
tell its files, or simply hold files that are called as their split, alone or in numbered shards.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_prompts.files.errors import PromptError
from lightning_prompts.tasks.arrow_rows import is_saved
from lightning_prompts.tasks.files import stem, suffix

# The names that a folder may give the file of a split.
FILE_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?")  # as the hub names them
INNER = ("data",)  # where a repository's files may lie
README = "README.md"


class SplitFiles:
    """The files of a local folder, by split.

    Args:
        folder: The folder.
        subset: The configuration that is meant, where the folder has several.
    """

    def __init__(self, folder: Path, subset: str | None = None) -> None:
        self.folder, self.subset = folder, subset

    def of(self, split: str) -> list[Path]:
        """The files or saved folders of a split in their order; empty where there are none.

        Raises:
            PromptError: If several could be meant, or a shard is missing.
        """
        if self._named_by_readme is not None:
            return self._by_readme(split)
        return [] if self._place is None else _files_in(self._place, split)

    @functools.cached_property
    def _place(self) -> Path | None:
        """The first place that has any split: copies of another's files may lie elsewhere."""
        holds = (place for place in self._places for split in FILE_NAMES if _groups(place, split))
        return next(holds, None)

    @functools.cached_property
    def _places(self) -> list[Path]:
        """Where files may lie, the most likely first."""
        if self.subset is not None:
            places = [self.folder / self.subset, self.folder / INNER[0] / self.subset]
        else:
            places = [self.folder, *(self.folder / name for name in INNER)]
        found = [place for place in places if place.is_dir()]
        if found:
            return found
        raise PromptError(
            f"--data.subset {self.subset}: {self.folder} is local and has none of that name; leave "
            "--data.subset out (null), it is for the configurations of a data set."
        )

    # ---- by a README.md

    @functools.cached_property
    def _named_by_readme(self) -> Mapping[str, Any] | None:
        """The configuration that README.md tells of, None where it tells of none."""
        configs = [c for c in _readme_configs(self.folder) if c.get("data_files")]
        names = [str(config.get("config_name", "default")) for config in configs]
        if not configs:
            return None
        if self.subset is not None:
            found = [c for c, name in zip(configs, names, strict=True) if name == self.subset]
        else:
            found = [c for c in configs if c.get("default")] or [
                c for c, name in zip(configs, names, strict=True) if name == "default"
            ]
            found = found or (configs if len(configs) == 1 else [])
        if not found:
            given = "" if self.subset is None else f"{self.subset} is none of them; "
            raise PromptError(
                f"{self.folder / README} names the configurations {', '.join(names)}; {given}give "
                "one of them with --data.subset."
            )
        return found[0]

    def _by_readme(self, split: str) -> list[Path]:
        assert self._named_by_readme is not None
        given = self._named_by_readme["data_files"]
        if isinstance(given, Mapping):
            given = [{"split": name, "path": path} for name, path in given.items()]
        elif isinstance(given, str):
            given = [{"split": "train", "path": given}]
        files: list[Path] = []
        for entry in given if isinstance(given, list) else []:
            entry = {"split": "train", "path": entry} if isinstance(entry, str) else entry
            if not isinstance(entry, Mapping) or entry.get("split") not in FILE_NAMES[split]:
                continue
            paths = entry.get("path")
            base = self.folder / str(self._named_by_readme.get("data_dir") or ".")
            for path in paths if isinstance(paths, list) else [paths]:
                found = matching(base, str(path))
                if not found:
                    raise PromptError(
                        f"{self.folder / README} names {path} for {split}, which is not there; "
                        f"download it, or name a file: --data.{split} FILE."
                    )
                files += found
        _check_shards(files)
        return files


def is_pattern(name: str) -> bool:
    """Whether a name stands for all files that are called so."""
    return bool(set(name) & set("*?["))


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files that a path with `*`, `?` or `[...]` names, sorted by name."""
    given = Path(pattern).expanduser()
    if given.is_absolute():
        folder, pattern = Path(given.anchor), str(given.relative_to(given.anchor))
    if not is_pattern(pattern):
        return [folder / pattern] if (folder / pattern).is_file() else []
    return sorted(path for path in folder.glob(pattern) if path.is_file() and suffix(path))


def files_below(folder: Path) -> list[Path]:
    """The data files that lie in a folder, sorted by name; a folder that was saved is one."""
    if is_saved(folder):
        return [folder]
    files = sorted(path for path in folder.iterdir() if path.is_file() and suffix(path))
    _check_shards(files)
    return files


def _files_in(folder: Path, split: str) -> list[Path]:
    """The files of a split in one folder."""
    groups = _groups(folder, split)
    if len(groups) > 1:
        raise PromptError(
            f"Folder {folder} has {len(groups)} {split} files ({', '.join(groups)}); say which "
            f"with --data.{split} FILE."
        )
    files = next(iter(groups.values()), [])
    _check_shards(files)
    return files


def _groups(folder: Path, split: str) -> dict[str, list[Path]]:
    """What may be a split: single files, all shards of one name, and folders, by their names."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            # `train.jsonl` as a folder is no split.
            if path.name.lower() in FILE_NAMES[split] and (found := files_below(path)):
                groups[f"{path.name}/"] = found
        elif path.is_file() and suffix(path):
            # What is left of the name must be the split's: `train.old.csv` is not meant.
            name = stem(path).lower()
            shard = SHARD.fullmatch(name)
            if (shard[1] if shard else name) in FILE_NAMES[split]:
                key = f"{shard[1]}-*-of-{shard[3]}{suffix(path)}" if shard else path.name
                groups.setdefault(key, []).append(path)
    return groups


def _check_shards(files: list[Path]) -> None:
    """Refuse shards that are not all there: fewer rows would pass for all of them."""
    groups: dict[tuple[Path, str, int], set[int]] = {}
    for path in files:
        if shard := SHARD.fullmatch(stem(path)):
            groups.setdefault((path.parent, shard[1], int(shard[3])), set()).add(int(shard[2]))
    for (folder, name, count), found in groups.items():
        if missing := sorted(set(range(count)) - found):
            raise PromptError(
                f"Folder {folder} has {len(found)} of {count} shards of {name}; "
                f"{name}-{missing[0]:05d}-of-{count:05d} is missing: download it."
            )


def _readme_configs(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The entries of `configs` at the head of README.md."""
    readme = folder / README
    if not readme.is_file():
        return
    text = readme.read_text(encoding="utf-8", errors="replace")
    head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        content = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return
    configs = content.get("configs") if isinstance(content, Mapping) else None
    yield from (c for c in configs or () if isinstance(c, Mapping))
