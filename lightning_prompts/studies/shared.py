"""What the runs of one worker share: the language model, and measures that no prompt changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_prompts.callbacks.base import callback_of
from lightning_prompts.callbacks.baselines import Baselines
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.files.text import command, short_path
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.runs.last_prompt import LastPrompt


class SharedLM:
    """Makes language models, and keeps the latest: runs with the same options share it.

    Its cache of texts is shared as well, within its own bound (`--lm.text_cache`).
    """

    def __init__(self) -> None:
        self.loaded = 0
        """Models that were read so far."""
        self._options: dict[str, Any] | None = None
        self._lm: FrozenLM | None = None
        self._dtype: Any = None

    def __call__(self, **options: Any) -> FrozenLM:
        """The model of these options."""
        # A run in `bf16-true` has changed the weights of the model that it was given.
        same = self._lm is not None and self._lm.embedding_table.dtype == self._dtype
        if self._lm is None or options != self._options or not same:
            self._lm = self._options = None  # before the next one takes its room
            self._lm = FrozenLM(**options)
            self._options, self._dtype = options, self._lm.embedding_table.dtype
            self.loaded += 1
        self._lm.text_cache.renew()
        return self._lm


class SharedBaselines:
    """Carries the baselines from one run to the next, which measures them where they differ."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def start(self, cli: PromptCLI) -> None:
        """Run what was built, with what earlier runs have measured.

        Raises:
            SystemExit: 130 or 143 where a signal stopped it, or came when it had nothing left to
                stop: what would come next is stopped.
        """
        baselines = callback_of(cli.trainer, Baselines)
        baselines.load_state_dict({"validations": 0, "known": dict(self._known)})
        cli.start()
        self._known |= baselines.state_dict()["known"]
        if (signum := callback_of(cli.trainer, LastPrompt).stopped_by) is not None:
            raise SystemExit(128 + signum)


def stopped(prompt: str, runs: Sequence[Path], number: int) -> str:
    """What to say where a signal ended one of several runs.

    Args:
        prompt: What that run is about.
        runs: Those that were made before it.
        number: Of runs in all.
    """
    if runs:
        whole = f"Those before it: {command('report', *map(short_path, runs))}"
    else:
        whole = "Nothing was measured; --trainer.limit_val_batches 4 reads fewer rows."
    return f"Stopped at {prompt}, prompt {len(runs) + 1} of {number}. {whole}"
