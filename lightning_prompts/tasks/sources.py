"""Where a data set's rows are: a local folder or file, or the Hugging Face hub."""

import functools
import re
from pathlib import Path
from typing import Any

from lightning_prompts.errors import PromptError
from lightning_prompts.hub import offline_unless_reachable
from lightning_prompts.tasks.files import READERS, read_file, suffix
from lightning_prompts.tasks.rows import Rows

# The names that a folder may give the file of a split.
FILE_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


class DataSource:
    """The data set that `path` names; nothing is read before a split is asked for.

    A local folder or file comes first; a name that cannot be a path is looked up on the Hub.

    Args:
        path: Folder, file or Hub id; None where each split has a file of its own.
        subset: Name of a Hub data set's configuration.
        revision: Branch, tag or commit of a Hub data set.

    Raises:
        PromptError: If `path` looks like a path and does not exist.
    """

    def __init__(self, path: str | None, subset: str | None, revision: str | None) -> None:
        self.path, self.subset, self.revision = path, subset, revision
        self._commit: str | None = None
        self.local = Path(path).expanduser() if path else None
        self.is_file = self.local is not None and self.local.is_file()
        self.is_hub = self.local is not None and not self.local.exists()
        if self.local is not None and not self.is_hub:
            for flag, given in (("subset", subset), ("data_revision", revision)):
                if given is not None:
                    raise PromptError(
                        f"--data.{flag} {given}: {path} is local and has none; leave --data.{flag} "
                        "out (null), it is for data sets of the hub."
                    )
        if self.is_hub and path is not None and _looks_like_a_path(path):
            raise PromptError(
                f"--data.path {path}: no such file or folder; give an existing one, or the id of a "
                "data set on the Hugging Face hub (OWNER/NAME)."
            )

    @property
    def commit(self) -> str | None:
        """Commit of the Hub data set that was read, once some of it was; None for local data."""
        return self._commit

    def whole_file(self) -> Rows:
        """All rows, where `path` is one file."""
        assert self.local is not None
        return read_file(self.local)

    def has(self, split: str) -> bool:
        """Whether the folder or the Hub data set has a split."""
        if self.is_hub:
            return split in self._hub_splits
        return self.local is not None and self._find_file(split) is not None

    def split(self, name: str) -> Rows:
        """The rows of a split that is there."""
        if self.is_hub:
            return Rows.of_dataset(f"{self.path} ({name})", self._hub_splits[name])
        file = self._find_file(name)
        assert file is not None
        return read_file(file)

    def named(self, name: str) -> Rows:
        """The rows of a given file, or of a given split of the Hub data set (`train[:500]`)."""
        file = Path(name).expanduser()
        if self.is_hub and not file.exists() and not _looks_like_a_path(name):
            return Rows.of_dataset(f"{self.path} ({name})", self._load_from_hub(name))
        if not file.exists() and self.local is not None and (self.local / name).is_file():
            file = self.local / name
        return read_file(file)

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
        names = " or ".join(f"{name}.*" for name in FILE_NAMES[split])
        kinds = ", ".join(READERS)
        return (
            f"{self.path} has no {split} file ({names} with {kinds}, plain or .gz); add one, or "
            f"name a file: --data.{split} FILE."
        )

    def _find_file(self, split: str) -> Path | None:
        assert self.local is not None
        found = [
            file
            for file in sorted(self.local.iterdir())
            if file.is_file() and (known := suffix(file))
            # What is left of the name must be the split's: `train.old.csv` is not meant.
            if file.name.lower().removesuffix(".gz").removesuffix(known) in FILE_NAMES[split]
        ]
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise PromptError(
                f"Folder {self.local} has {len(found)} {split} files ({names}); say which with "
                f"--data.{split} FILE."
            )
        return found[0] if found else None

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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        if isinstance(error, PermissionError):
            reason += "; HF_HOME names a folder for its cache that can be written"
        return (
            f"Data set {self.path!r} is no local file or folder, and could not be loaded from the "
            f"Hugging Face hub ({reason}); check --data.path, --data.subset and "
            "--data.data_revision."
        )


def _looks_like_a_path(name: str) -> bool:
    """Whether a name was meant as a path: a Hub id is at most `owner/name`, without a suffix."""
    return (
        name.startswith((".", "/", "~"))
        or "\\" in name
        or name.count("/") > 1
        or suffix(Path(name)) != ""
        or name.endswith("/")
    )
