"""Callbacks that average weights: they average the prompt, or are refused.

Lightning's take the whole module: they copy the language model, average what is frozen, and put the
average in place for a part of each validation. Here they see the trained parameters alone, and the
average is in place from the first hook of a validation to its last, in which the best prompt is
saved; so the table, best.ckpt and prompt.json are of the same prompt.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.lightning_internals import averaged, last_averaged_epoch
from lightning_prompts.files.numbers import HALF_WEIGHTS
from lightning_prompts.tuners.views import PromptViews

AVERAGING = "averaging"  # its key in a checkpoint
# Where Lightning's put the average in place: the tuner asks for it before other callbacks begin to
# measure, gives it back when the best prompt has been saved, and the last checkpoint, from which a
# longer run goes on, is written without it.
AT_OTHER_MOMENTS = ("on_validation_epoch_start", "on_validation_epoch_end", "on_train_end")


class TrainedPart(LightningModule):
    """The trained parameters of a tuner, themselves, and nothing else.

    Args:
        tuner: Whose.
        device: That they are going to be on.
    """

    def __init__(self, tuner: LightningModule, device: torch.device) -> None:
        super().__init__()
        for name, parameter in trained(tuner):
            self.register_parameter(_inner(name), parameter)
        self._device = device


class PromptAverage(Callback):
    """Stands in for a callback that averages weights, and shows it the prompt alone.

    Until it has averaged anything, the prompt itself is measured and saved.

    Args:
        inner: The callback. What it does at other moments than those of Lightning's own, it does
            as ever.
    """

    def __init__(self, inner: WeightAveraging) -> None:
        self.inner = inner
        self._part: TrainedPart | None = None
        self._trainer: Any = None
        self._tuner: Any = None
        self._in_place = False
        for name in dir(Callback):
            if name.startswith("on_") and name not in (*vars(PromptAverage), *AT_OTHER_MOMENTS):
                setattr(self, name, getattr(inner, name))

    @property
    def name(self) -> str:
        """What it is called."""
        return type(self.inner).__name__

    @property
    def state_key(self) -> str:
        """Its state in a checkpoint is the callback's own."""
        return self.inner.state_key

    @property
    def has_begun(self) -> bool:
        """Whether there is an average."""
        average = averaged(self.inner)
        return average is not None and bool(average.n_averaged > 0)

    # ---- the average in the prompt's place

    def put_in_place(self) -> None:
        """Exchange the prompt with its average, if there is one, until `take_back`."""
        if self.has_begun and not self._in_place:
            assert self._part is not None
            self.inner.on_validation_epoch_start(self._trainer, self._part)
            self._in_place, self._tuner.averaged_by = True, self.name

    def take_back(self) -> None:
        """Put the prompt that is trained into its place again."""
        if self._in_place:
            assert self._part is not None
            self.inner.on_validation_epoch_end(self._trainer, self._part)
            self._in_place, self._tuner.averaged_by = False, None

    @contextlib.contextmanager
    def in_place(self, wanted: bool = True) -> Iterator[None]:
        """Hold the average, or the trained prompt, for a while."""
        before = self._in_place
        (self.put_in_place if wanted else self.take_back)()
        try:
            yield
        finally:
            (self.put_in_place if before else self.take_back)()

    # ---- Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the prompt, on the device that it will be trained on.

        Raises:
            PromptError: If the average cannot be kept.
        """
        if stage != "fit":
            return
        part = TrainedPart(pl_module, trainer.strategy.root_device)
        if str(trainer.precision) in HALF_WEIGHTS:
            raise PromptError(
                f"--trainer.precision {trainer.precision} keeps the prompt in half precision, "
                f"which swallows the small steps of {self.name}; use bf16-mixed or 32-true."
            )
        self._part, self._trainer, self._tuner, self._in_place = part, trainer, pl_module, False
        try:
            self.inner.setup(trainer, part, stage)
        except (RuntimeError, AssertionError, TypeError) as error:
            raise PromptError(f"--trainer.callbacks {self.name}: {first_line(error)}.") from error

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Average after a step."""
        self.inner.on_train_batch_end(trainer, self._known(), *args)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average after an epoch."""
        self.inner.on_train_epoch_end(trainer, self._known())

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average in the prompt."""
        if self.has_begun:
            self.inner.on_train_end(trainer, self._known())
            self._tuner.averaged_by = self.name

    def state_dict(self) -> dict[str, Any]:
        """The callback's own, and what Lightning's leaves out: the last epoch that it averaged."""
        return {**self.inner.state_dict(), "latest_update_epoch": last_averaged_epoch(self.inner)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved."""
        self.inner.load_state_dict(state_dict)
        last_averaged_epoch(self.inner, state_dict["latest_update_epoch"])

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the prompt, and beside it the one that is trained."""
        if self._part is None:
            return
        with self.in_place(False):
            own: dict[str, Any] = {"state_dict": _copies(self._part.state_dict())}
            self.inner.on_save_checkpoint(trainer, self._part, own)
            own["state_dict"] = _copies(own["state_dict"])
        checkpoint[AVERAGING] = own
        if self.has_begun:
            names = [name for name, _ in trained(pl_module)]
            checkpoint["state_dict"] |= {name: own["state_dict"][_inner(name)] for name in names}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both back, where a fit goes on.

        Raises:
            PromptError: If the checkpoint has no average.
        """
        if self._part is None:
            return
        if AVERAGING not in checkpoint:
            raise PromptError(
                f"The checkpoint's run averaged nothing but this one has {self.name}; leave it out "
                "of --trainer.callbacks, or start a new run without --ckpt_path."
            )
        self.inner.on_load_checkpoint(trainer, self._part, checkpoint[AVERAGING])
        self._tuner.averaged_by = None

    def _known(self) -> TrainedPart:
        assert self._part is not None, "not set up"
        return self._part


def average_of(trainer: Any, tuner: PromptViews) -> PromptAverage | None:
    """The trainer's callback that averages weights, which from now on sees the prompt alone.

    Args:
        trainer: Its list of callbacks is changed.
        tuner: Whose prompt.

    Raises:
        PromptError: If the prompt has no average, or there would be none to measure.
    """
    found: list[PromptAverage] = []
    for place, callback in enumerate(trainer.callbacks):
        if isinstance(callback, StochasticWeightAveraging):
            raise PromptError(
                f"{type(callback).__name__} puts its average in place after the last validation, "
                "so that no table and no best.ckpt would be of it; use WeightAveraging, which also "
                "weighs all steps alike, or EMAWeightAveraging."
            )
        if isinstance(callback, WeightAveraging):
            trainer.callbacks[place] = callback = PromptAverage(callback)
        if isinstance(callback, PromptAverage):
            found.append(callback)
    if len(found) > 1:
        raise PromptError(
            f"--trainer.callbacks has {found[0].name} and {found[1].name}, but one prompt has one "
            "average; leave one of them out."
        )
    if found and not tuner.has_soft_prompt:
        raise PromptError(
            f"{type(tuner).__name__}'s prompt is tokens, which have no average; leave "
            f"{found[0].name} out of --trainer.callbacks."
        )
    return found[0] if found else None


def trained(tuner: LightningModule) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and values of the parameters that are trained."""
    return [(name, p) for name, p in tuner.named_parameters() if p.requires_grad]


def _inner(name: str) -> str:
    """A parameter's name as one of a module without parts."""
    return name.replace(".", "/")


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the next exchange does not reach."""
    return {name: value.clone() for name, value in state.items()}


class Averages(PromptViews):
    """A tuner whose prompt a callback may average."""

    averaging: PromptAverage | None = None
    """The callback of this fit that does."""

    def configure_callbacks(self) -> list[Any]:
        """Let callbacks that average weights see the prompt alone, or refuse them; adds none."""
        found = average_of(self.trainer, self)
        self.averaging = found if self.trainer.state.fn == TrainerFn.FITTING else None
        return []

    def on_validation_model_eval(self) -> None:
        """Put the average in place, where one is kept, before anything is measured or chosen."""
        super().on_validation_model_eval()
        if self.averaging is not None:
            self.averaging.put_in_place()

    def on_validation_end(self) -> None:
        """Go on with what is trained, once the callbacks have saved what was measured."""
        if self.averaging is not None:
            self.averaging.take_back()
