"""Signals to an evaluation: also one that comes before its first batch."""

import os
import signal

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_prompts.runs.stopping import Stopping


class Signalled(Callback):
    """Is sent SIGTERM where baselines are computed."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("sent", [True, False])
def test_a_signal_before_the_first_batch_ends_an_evaluation(
    monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    raised: list[int] = []
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[*[Signalled()] * sent, Stopping()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1,
    )
    trainer.validate(BoringModel(), verbose=False)
    assert raised == [signal.SIGTERM] * sent
