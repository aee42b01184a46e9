"""Where a data set's rows are: local files or folders, or the Hugging Face hub."""

import functools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.hub import offline_unless_reachable
from lightning_prompts.files.text import looks_like_path
from lightning_prompts.tasks import split_files
from lightning_prompts.tasks.arrow_rows import is_saved, read_saved
from lightning_prompts.tasks.files import READERS, read_file, read_parts, suffix
from lightning_prompts.tasks.reading import Reading
from lightning_prompts.tasks.rows import ALL, Rows


class DataSource:
    """The data set that `path` names; nothing is read before a split is asked for.

    A local folder or file comes first; a name that cannot be a path is looked up on the Hub.

    Args:
        path: Folder, file, files (`part-*.csv`) or Hub id; None where each split has its own file.
        subset: Name of a configuration, of a Hub data set or of its local copy.
        revision: Branch, tag or commit of a Hub data set.
        reading: How files are read, and what of them.

    Raises:
        PromptError: If `path` looks like a path and does not exist.
    """

    def __init__(
        self, path: str | None, subset: str | None, revision: str | None, reading: Reading = ALL
    ) -> None:
        self.path, self.subset, self.revision, self.reading = path, subset, revision, reading
        self._commit: str | None = None
        self.local = Path(path).expanduser() if path else None
        there = self.local is not None and self.local.exists()
        self._several = path is not None and not there and split_files.is_pattern(path)
        # One table that is to be cut, as a file is.
        self.is_file = self._several or (
            self.local is not None and (self.local.is_file() or is_saved(self.local))
        )
        self.is_hub = self.local is not None and not there and not self._several
        if self.local is not None and not self.is_hub:
            for flag, given in (("subset", subset), ("data_revision", revision)):
                if given is not None and (flag != "subset" or self.is_file):
                    raise PromptError(
                        f"--data.{flag} {given}: {path} is local and has none; leave --data.{flag} "
                        "out (null), it is for data sets of the hub."
                    )
        if self.is_hub and path is not None and _is_no_hub_id(path):
            raise PromptError(
                f"--data.path {path}: no such file or folder; give an existing one, or the id of a "
                "data set on the Hugging Face hub (OWNER/NAME)."
            )

    @property
    def commit(self) -> str | None:
        """Commit of the Hub data set that was read, once some of it was; None for local data."""
        return self._commit

    def whole_file(self) -> Rows:
        """All rows, where `path` is one file, or several that are one table."""
        assert self.local is not None
        if self._several:
            return self._read(self.paths(str(self.local), "path"))
        return self._read([self.local])

    def has(self, split: str) -> bool:
        """Whether the folder or the Hub data set has a split."""
        if self.is_hub:
            return split in self._hub_splits
        return self.local is not None and not self.is_file and bool(self.files(split))

    def split(self, name: str) -> Rows:
        """The rows of a split that is there."""
        if self.is_hub:
            source = f"{self.path} ({name})"
            return Rows.of_dataset(source, self._hub_splits[name], self.reading)
        return self._read(self.files(name))

    def named(self, name: str, split: str = "train") -> Rows:
        """The rows that an option names: a file, a folder, several files (`part-*.csv`), a split.

        Args:
            name: Of a file, here or in the folder, or of a split on the Hub (`train[:500]`).
            split: That the option is for.
        """
        if self.is_hub and not Path(name).expanduser().exists() and not _is_no_hub_id(name):
            return Rows.of_dataset(f"{self.path} ({name})", self._load_from_hub(name), self.reading)
        return self._read(self.paths(name, split))

    def files(self, split: str) -> list[Path]:
        """The files of a split that is there, on a local disk."""
        return self._files.of(split)

    def paths(self, name: str, option: str) -> list[Path]:
        """The files that an option names, here or in the folder.

        Args:
            name: A file, a folder, or a pattern.
            option: Its name, for messages.

        Raises:
            PromptError: If a pattern or a folder has none.
        """
        inside = self.local if self.local is not None and self.local.is_dir() else Path()
        file = Path(name).expanduser()
        if not file.exists() and (inside / name).exists():
            file = inside / name
        if file.is_dir():
            found = split_files.files_below(file)
        elif file.exists() or not split_files.is_pattern(name):
            return [file]
        else:
            found = split_files.matching(Path(), name) or split_files.matching(inside, name)
        if not found:
            raise PromptError(
                f"--data.{option} {name}: there are no such data files ({', '.join(READERS)}, "
                "plain or packed); check the name."
            )
        return found

    def _read(self, files: list[Path]) -> Rows:
        """The rows of files, one after another."""
        parts = [
            read_saved(file, self.reading) if is_saved(file) else read_file(file, self.reading)
            for file in files
        ]
        if len(parts) == 1:
            return parts[0]
        return Rows.joined(f"{parts[0].source} and {len(parts) - 1} more", parts)

    def parts(self, files: Sequence[Path], size: int) -> Iterator[Rows]:
        """The rows of files, one after another, `size` at a time where their formats allow it.

        Raises:
            PromptError: As a file's reader, once the part is asked for.
        """
        read: list[tuple[str, int]] = []  # the files that were read, with their rows
        for file in files:
            done, found = sum(count for _, count in read), 0
            # What comes of this file is not known before its end.
            known = (*read, (str(file), sys.maxsize)) if len(files) > 1 else ()
            whole = iter([read_saved(file, self.reading)]) if is_saved(file) else None
            for part in whole or read_parts(file, self.reading, size):
                numbers = [number + done for number in part.numbers]
                found += len(part)
                yield replace(part, numbers=numbers, files=known)
            read.append((str(file), found))

    def missing(self, split: str) -> str:
        """What was looked for in vain, and the flag that helps."""
        if self.path is None:
            return (
                f"There is no {split} data; give --data.path, or name a file: --data.{split} FILE."
            )
        if self.is_hub:
            return f"{self.path} has no {split} split on the Hub; name a file: --data.{split} FILE."
        if self.is_file:
            return (
                f"--data.split leaves no row of {self.path} to the {split} split; change it, or "
                f"name a file: --data.{split} FILE."
            )
        names = " or ".join(f"{name}.*" for name in split_files.FILE_NAMES[split])
        kinds = ", ".join(READERS)
        return (
            f"{self.path} has no {split} file ({names} with {kinds}, plain or .gz, or numbered as "
            f"{split}-00000-of-00001, also in data/); add one, or name it: --data.{split} FILE."
        )

    @functools.cached_property
    def _files(self) -> split_files.SplitFiles:
        assert self.local is not None
        return split_files.SplitFiles(self.local, self.subset)

    @functools.cached_property
    def _hub_splits(self) -> Any:  # a datasets.DatasetDict
        return self._load_from_hub(None)

    def _load_from_hub(self, split: str | None) -> Any:
        import datasets

        datasets.logging.set_verbosity_error()  # e.g. a warning for each use of a cached copy
        with offline_unless_reachable() as reachable:
            try:
                loaded = datasets.load_dataset(
                    self.path, self.subset, split=split, revision=self.revision
                )
            except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
                raise PromptError(self._refusal(error, reachable)) from error
        parts = loaded.values() if split is None else (loaded,)
        urls = [url for part in parts for url in part.info.download_checksums or ()]
        # hf://datasets/OWNER/NAME@COMMIT/FILE
        commits = {found[1] for url in urls if (found := re.search(r"@([0-9a-f]{40})/", url))}
        self._commit = commits.pop() if len(commits) == 1 else None
        return loaded

    def _refusal(self, error: Exception, reachable: bool) -> str:
        if not reachable and isinstance(error, OSError):
            at = f" at revision {self.revision}" if self.revision else ""
            return (
                f"Data set {self.path!r}{at} is no local file or folder and not in the local "
                "cache, and the Hugging Face hub cannot be reached; give a local copy with "
                "--data.path FOLDER, or connect and try again."
            )
        reason = first_line(error)
        if isinstance(error, PermissionError):
            reason += "; HF_HOME names a folder for its cache that can be written"
        return (
            f"Data set {self.path!r} is no local file or folder, and could not be loaded from the "
            f"Hugging Face hub ({reason}); check --data.path, --data.subset and "
            "--data.data_revision."
        )


def _is_no_hub_id(name: str) -> bool:
    """Whether a name was meant as a path: that of a data set has no suffix of a file's."""
    return looks_like_path(name) or "\\" in name or suffix(Path(name)) != "" or name.endswith("/")
