"""Builds of the project to compare: the working tree, and an older commit beside it."""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("lightning_prompts", "configs")


@dataclass(frozen=True)
class Build:
    """A checkout whose package is run.

    Attributes:
        folder: Of the checkout.
        name: Names its package and configurations: other files may change.
    """

    folder: Path
    name: str

    def command(self, *args: str) -> list[str]:
        """The command line of `lightning-prompts`."""
        return [sys.executable, "-m", "lightning_prompts", *args]

    @property
    def environment(self) -> dict[str, str]:
        """Puts its package before the one that is installed."""
        given = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join([str(self.folder), *([given] if given else [])])}


def working_tree() -> Build:
    """The project's own checkout with what is changed in it."""
    trees = " ".join(_git("rev-parse", f"HEAD:{part}") for part in PRODUCT)
    changes = _git("diff", "HEAD", "--", *PRODUCT)
    digest = hashlib.sha256(f"{trees}\n{changes}".encode()).hexdigest()[:8]
    return Build(ROOT, digest)


@contextlib.contextmanager
def checked_out(commit: str, folder: Path | None) -> Iterator[Build]:
    """Another commit in a worktree of its own.

    Args:
        commit: To check out.
        folder: Where to, and where it stays; one that is there must be of that commit. None is a
            temporary one.

    Raises:
        SystemExit: If the folder holds another commit.
    """
    full = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
    if folder is None:
        with tempfile.TemporaryDirectory() as above:
            path = Path(above) / full[:7]
            _git("worktree", "add", "--detach", str(path), full)
            try:
                yield Build(path, full[:7])
            finally:
                _git("worktree", "remove", "--force", str(path))
        return
    folder = folder.resolve()
    if not folder.exists():
        _git("worktree", "add", "--detach", str(folder), full)
    if (there := _git("-C", str(folder), "rev-parse", "HEAD")) != full:
        raise SystemExit(f"{folder} holds {there[:7]}, not {full[:7]}; give another --folder.")
    yield Build(folder, full[:7])


def _git(*args: str) -> str:
    run = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"git {' '.join(args)}: {run.stderr.strip()}")
    return run.stdout.strip()
