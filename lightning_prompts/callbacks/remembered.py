"""Forward passes that are not repeated while the prompt's tokens stay the same."""

from collections.abc import Callable

from torch import Tensor

from lightning_prompts.lm.batch import Batch, batch_digest

# Hidden states of 80,000 rows at GPT-2's width.
MAX_BYTES = 2**28


class RememberedPasses:
    """Final hidden states of batches under one prompt, kept on the CPU.

    A soft prompt's nearest tokens often stay the same from one validation to the next, and so does
    all that the model says of them. States are found by the token ids of their batch, so those of
    another stage, loader, batch size or limit can never be taken for them; they are the exact
    tensors of the earlier pass. Beyond `max_bytes` nothing more is kept, only computed.

    Args:
        max_bytes: Bound of the memory.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._keep = True
        self._prompt: list[int] | None = None
        self._states: dict[bytes, Tensor] = {}

    def clear(self) -> None:
        """Forget everything, e.g. because the model or its precision may be another."""
        self._prompt, self._states = None, {}

    def use(self, prompt: list[int], keep: bool = True) -> None:
        """Name the prompt that the next passes are of; another than before forgets all states.

        Args:
            prompt: Its token ids.
            keep: False repeats every pass, where processes have to make the same ones.
        """
        self._keep = keep
        if prompt != self._prompt or not keep:
            self._prompt, self._states = prompt, {}

    def __call__(self, kind: str, batch: Batch, run: Callable[[], Tensor]) -> Tensor:
        """Remembered states, or those of `run()`.

        Args:
            kind: Tells passes of different prompts over equal batches apart.
            batch: B examples, on whose device the states are returned.
            run: Makes the pass: [B, ...].

        Returns:
            [B, ...]
        """
        key = batch_digest(batch, kind)
        if (found := self._states.get(key)) is not None:
            return found.to(batch["labels"].device)
        hidden = run()
        used = sum(state.nbytes for state in self._states.values())
        if self._keep and used + hidden.nbytes <= self.max_bytes:
            self._states[key] = hidden.detach().cpu()
        return hidden
