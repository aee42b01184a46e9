"""Validation with the callbacks that measure interpretability against validation alone."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Trainer

from benchmarks.lines import Line, NotTheSameError, alternate, apart
from benchmarks.setting import Setting, nearby, verbalizer, words
from benchmarks.steps import PRECISION
from lightning_prompts.callbacks import Faithfulness, PromptText, Scrutability
from lightning_prompts.tuners import SoftPrompt

PROMPT_LENGTH, TEXT_LENGTH, VAL_BATCH = 10, 32, 64
NUM_ROWS = {"cpu": 128, "cuda": 2048}
MOST_REPETITIONS = 5  # of several seconds each on two cores
PEER = "validation alone"


def validation(setting: Setting) -> Iterator[Line]:
    """`Trainer.validate` of a soft prompt that is another at each repetition, as in a fit."""
    num_rows = NUM_ROWS[setting.device]
    shape = f"{num_rows} rows, P={PROMPT_LENGTH}, T={TEXT_LENGTH}, {PRECISION[setting.device]}"
    lines = {
        True: Line(f"validation, {shape}, text gives other tokens", PEER, 3.3, cost=True),
        False: Line(f"validation, {shape}, text gives the same tokens", PEER, 2.2, cost=True),
    }
    if setting.missing:
        yield from (line.not_run(setting.missing) for line in lines.values())
        return
    lm = setting.lm()
    task = setting.task(lm, num_rows, TEXT_LENGTH, val_batch_size=VAL_BATCH)
    tuner = SoftPrompt(lm, task.template, verbalizer(lm), prompt_length=PROMPT_LENGTH)
    trainers = {
        "theirs": Trainer(**setting.trainer_options),
        "ours": Trainer(
            **setting.trainer_options, callbacks=[Faithfulness(), Scrutability(), PromptText()]
        ),
    }
    found: dict[str, dict[str, Any]] = {}

    def validate(name: str) -> None:
        (found[name],) = trainers[name].validate(tuner, datamodule=task, verbose=False)

    for twins, line in lines.items():

        def renew(repetition: int, twins: bool = twins) -> None:
            ids = words(lm, PROMPT_LENGTH, seed=repetition, twins=twins)
            rows = lm.embed(ids.to(lm.embedding_table.device)).float()
            tuner.prompt.data = rows + nearby(rows, repetition)

        repetitions = min(setting.repetitions, MOST_REPETITIONS)
        ways = {name: lambda name=name: validate(name) for name in trainers}
        measured = alternate(ways, repetitions, prepare=renew)
        theirs, ours = (torch.tensor(found[name]["val/loss"]) for name in trainers)
        words_of = apart(line.work, "loss", ours, theirs, 1e-6)
        if (found["ours"]["val/round_trip"] < 1) != twins:
            raise NotTheSameError(f"{line.work}: the text of this prompt does not.")
        yield line.result(measured["theirs"], measured["ours"], words_of)
