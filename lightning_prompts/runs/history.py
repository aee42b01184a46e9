"""history.jsonl: what each validation of a run measured, and what it had cost by then."""

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from lightning_prompts.files.atomic_files import append_line, write_lines
from lightning_prompts.files.errors import PromptError
from lightning_prompts.runs.events import read_events
from lightning_prompts.runs.folder import HISTORY
from lightning_prompts.runs.record import Validation, finite


def read_history(run: Path) -> list[Validation]:
    """The validations of a run; a last one without metrics is where it was stopped.

    Args:
        run: Its folder. Runs of before there was such a file have TensorBoard's.

    Raises:
        PromptError: If a line is none of a history; half a line, of a killed process, is left out.
    """
    path = run / HISTORY
    if not path.is_file():
        return read_events(run)
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    try:
        found = [Validation(**json.loads(line)) for line in lines[:-1]]
        for validation in found:
            validation.metrics = finite(validation.metrics)
    except (ValueError, TypeError, AttributeError) as error:
        raise PromptError(
            f"{path}: not as fit writes it ({error!r}); remove it where the run logged to "
            "TensorBoard, or run it again."
        ) from error
    return found


class History:
    """Writes the file, a line a validation, so that a resumed run leaves that of one in one go."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._step = -1
        """Of the last line."""
        self._before = 0.0
        self._begun: float | None = None

    @property
    def seconds(self) -> float:
        """Of training so far, without the time between a stop and a restart."""
        now = 0.0 if self._begun is None else time.monotonic() - self._begun
        return self._before + now

    def resume(self, seconds: float) -> None:
        """Count on from a checkpoint's seconds."""
        self._before, self._begun = seconds, None

    def begin(self, run: Path, step: int) -> None:
        """Begin, or go on; what was written beyond a checkpoint's step is dropped.

        Args:
            run: The run's folder.
            step: That the fit begins from.
        """
        self._path = run / HISTORY
        kept = [v for v in read_history(run) if v.metrics and v.step <= step] if step else []
        if kept or self._path.is_file():
            write_lines(self._path, map(asdict, kept))
        before = max([self.seconds, *(v.seconds for v in kept)]) if step else 0.0
        self._before, self._begun = before, time.monotonic()
        self._step = kept[-1].step if kept else -1

    def add(self, step: int, forward_tokens: float | None, metrics: Mapping[str, float]) -> None:
        """Add a validation; one of the same step before it, which was not saved, gives way."""
        if self._path is None:
            return
        if step <= self._step:
            kept = [v for v in read_history(self._path.parent) if v.step < step]
            write_lines(self._path, map(asdict, kept))
        line = Validation(step, round(self.seconds, 6), forward_tokens, dict(metrics))
        append_line(self._path, asdict(line))
        self._step = step

    def end(self, step: int, forward_tokens: float | None) -> None:
        """Note where a run ends that did not end with a validation."""
        if self._path is not None and step > self._step:
            with contextlib.suppress(OSError):  # which may be what ended it
                self.add(step, forward_tokens, {})
        self._before, self._begun, self._path = self.seconds, None, None
