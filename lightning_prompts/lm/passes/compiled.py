"""The frozen model's pass for one prompt, compiled: on a GPU one CUDA graph a shape.

On a GPU a small model waits for its kernels to be launched one by one; a graph launches them all at
once, but only for the shapes that it was recorded with. So texts are padded to a few lengths and an
incomplete batch to the size of a complete one. Padding changes no number: it stands behind the
answer, where causal attention does not look, and added rows are cut off.
"""

import logging
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.batch import Batch, on_device
from lightning_prompts.lm.passes.reuse import concatenated, prompts_first

log = logging.getLogger(__name__)

# Each shape takes up to a minute to compile and memory for its graph; past these the data has no
# few lengths, and the pass stays as it is.
MAX_SHAPES = 32
# With CUDA graphs the first pass of a shape warms up, the second records, the third replays.
TRIAL_PASSES = 3

Pass = Callable[[Backbone, Tensor, Batch], Tensor]


class _Plan(NamedTuple):
    """How a batch is read: by which function, padded to what, under which key it is compiled."""

    function: Pass
    batch: Batch
    key: tuple[Any, ...]


class CompiledPasses:
    """Answers of one prompt through `torch.compile`, one compiled function a shape and mode.

    Where the compiler fails, a warning says why, once, and every pass goes on uncompiled.

    Args:
        lm: The frozen language model.
    """

    def __init__(self, lm: Backbone) -> None:
        self.lm = lm
        self._passes: dict[tuple[Any, ...], Pass] = {}
        self._expected = 0
        self._failed = False
        self._most_rows: dict[bool, int] = {}

    def __call__(self, prompts: Tensor, batch: Batch, reuse: bool) -> Tensor | None:
        """Final hidden states at the answer, as `FrozenLM.answers` gives them.

        The first batch of a shape waits for the compiler.

        Args:
            prompts: [K, P, H] Prompt embeddings; gradients flow back into them.
            batch: B examples, which fit with the prompt into the model's positions.
            reuse: Encode a prompt that comes first once and expand its keys and values, or
                concatenate it with each example.

        Returns:
            [1, B, H]; None where this is no case for a compiled pass: K is not 1, P is 0, token ids
            in place of vectors, shapes beyond the first 32, or a compiler that failed.
        """
        plan = None if self._failed else self._plan(prompts, batch, reuse)
        if plan is None:
            return None
        try:
            run = self._passes.get(plan.key)
            if run is None:
                if len(self._passes) >= MAX_SHAPES:
                    return None
                run = self._passes[plan.key] = self._compile(plan, prompts)
            hidden = run(self.lm, _given(prompts), plan.batch)
        except Exception as error:  # whatever it is that a compiler stumbles on
            self._give_up(error)
            return None
        # The next replay of the graph writes into the same memory.
        return hidden[:, : len(batch["after_ids"])].clone()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is compiled: another process makes its own."""
        return vars(self) | {"_passes": {}}

    def warm_up(self, prompts: Tensor, batches: Iterable[Batch], reuse: bool) -> None:
        """Compile, now, what these batches will ask for, in this grad mode and autocast.

        Args:
            prompts: [1, P, H] Stands for the prompt in its shape, type, device and gradient.
            batches: One of each shape is read, on the device of `prompts`; the rest cost nothing.
            reuse: As in a call.
        """
        batches = list(batches)
        # The largest first: smaller ones are padded to it.
        batches.sort(key=lambda batch: len(batch["after_ids"]), reverse=True)
        planned: dict[tuple[Any, ...], Batch] = {}
        for batch in batches:
            if plan := self._plan(prompts, batch, reuse):
                planned.setdefault(plan.key, batch)
        self._expected = len(self._passes.keys() | planned.keys())
        for batch in planned.values():
            self(prompts, on_device(batch, prompts.device), reuse)

    def _plan(self, prompts: Tensor, batch: Batch, reuse: bool) -> _Plan | None:
        """How to read the batch, or None where it is no case for a compiled pass."""
        if prompts.ndim != 3 or len(prompts) != 1 or prompts.shape[1] == 0:
            return None
        num_rows, num_before = batch["before_ids"].shape
        learns = _learns(prompts)
        most_rows = self._most_rows[learns] = max(num_rows, self._most_rows.get(learns, 0))
        if num_rows == 1 < most_rows and num_before:
            return None  # a last text alone shares what stands before the prompt with itself
        room = self.lm.max_positions - prompts.shape[1]
        # The answer is read at a token that is not shared.
        first = reuse and batch["shared_before"] and batch["min_after"] > 0
        # One row shares its text with itself, and its length would be a shape of its own.
        first = first and (num_rows > 1 or num_before <= len(self.lm.prefix_ids))
        if first:
            # Rows that share what stands before the prompt have it in one length, whatever batch.
            padded = _pad(batch, most_rows, num_before, room - num_before)
        else:
            padded = _pad(batch, most_rows, padded_length(num_before, room), room)
        device = prompts.device.type
        key = (
            first,
            prompts.shape,
            padded["before_ids"].shape,
            padded["after_ids"].shape,
            learns,
            torch.is_inference_mode_enabled(),
            prompts.is_inference(),
            prompts.dtype,
            prompts.device,
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        )
        return _Plan(prompts_first if first else concatenated, padded, key)

    def _compile(self, plan: _Plan, prompts: Tensor) -> Pass:
        """A compiled function that has been through all its stages, backward pass included."""
        number = len(self._passes) + 1
        log.info(
            "Compiling the language model's pass (%d of %d): %d texts of up to %d tokens.",
            number,
            max(number, self._expected),
            len(plan.batch["after_ids"]),
            plan.batch["num_tokens"],
        )
        mode = "reduce-overhead" if prompts.device.type == "cuda" else None
        run = torch.compile(_own_code(plan.function), fullgraph=True, dynamic=False, mode=mode)
        for _ in range(TRIAL_PASSES):
            start = prompts.detach().requires_grad_(_learns(prompts))
            hidden = run(self.lm, _given(start), plan.batch)
            if hidden.requires_grad:  # compiled here, where a failure can still be caught
                torch.autograd.grad(hidden, start, torch.zeros_like(hidden))
        if number == MAX_SHAPES:
            log.info("Texts of other lengths go uncompiled: %d shapes are compiled.", number)
        return run

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        self._passes.clear()
        cause = getattr(error, "inner_exception", error)  # what a backend raised, not its wrapper
        reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
        log.warning(
            "The language model's pass goes on uncompiled, with the same numbers: %s.",
            f"{type(cause).__name__}: {reason}".rstrip(": ."),
        )


def padded_length(length: int, most: int) -> int:
    """The length that texts of `length` tokens are padded to, at most `most` (>= `length`).

    Multiples of 16 up to 64, then two a power of two: 96, 128, 192, 256, ...
    """
    step = max(16, (1 << (length - 1).bit_length()) // 4)
    return min(-(-length // step) * step, max(length, most))


def _pad(batch: Batch, num_rows: int, num_before: int, room: int) -> Batch:
    """What the model reads of a batch, in `num_rows` rows of few lengths.

    Added rows repeat the last. `num_tokens` is that of the padded pieces, as far as there is room.
    """
    num_after = padded_length(batch["after_ids"].shape[1], room)
    padded: dict[str, Any] = {
        "before_ids": _grow(batch["before_ids"], num_before),
        "before_lengths": batch["before_lengths"],
        "after_ids": _grow(batch["after_ids"], num_after),
        "after_lengths": batch["after_lengths"],
    }
    # Also where no row is added: what inference mode makes is of another kind to the compiler.
    last = len(batch["after_ids"]) - 1
    rows = torch.arange(num_rows, device=batch["after_ids"].device).clamp(max=last)
    padded = {name: values[rows] for name, values in padded.items()}
    return cast(Batch, {**padded, "num_tokens": min(num_before + num_after, room)})


def _grow(ids: Tensor, length: int) -> Tensor:
    """[B, T] token ids with zeros behind them up to `length`."""
    return ids if ids.shape[1] == length else F.pad(ids, (0, length - ids.shape[1]))


def _learns(prompts: Tensor) -> bool:
    return torch.is_grad_enabled() and prompts.requires_grad


def _given(prompts: Tensor) -> Tensor:
    """The prompts as the compiled function gets them: alike in training and in its trial.

    A gradient out of a CUDA graph lies in memory that the next replay writes into, and autograd
    would keep it as the parameter's; so it leaves as a copy.
    """
    if not _learns(prompts):
        return prompts.detach()
    given = prompts.clone()
    given.register_hook(torch.clone)
    return given


def _own_code(function: Pass) -> Pass:
    """A copy with a code object of its own.

    The compiler keeps what it made by code object, eight versions each, and tries one after the
    other; so each shape has its own.
    """
    given = cast(FunctionType, function)
    own = FunctionType(
        given.__code__.replace(), given.__globals__, given.__name__, given.__defaults__
    )
    return cast(Pass, own)
