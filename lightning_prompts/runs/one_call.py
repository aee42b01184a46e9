"""Learning a prompt in one call, for those who want no `L.Trainer` of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import Callback

from lightning_prompts.callbacks import Baselines, Faithfulness, PromptText, Scrutability
from lightning_prompts.callbacks.finite_numbers import FiniteNumbers
from lightning_prompts.callbacks.rendered import Rendered
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.public_names import find_class
from lightning_prompts.files.shipped import shipped, shipped_files
from lightning_prompts.lm.chat import Conversation
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.runs.best_prompt import BestPrompt
from lightning_prompts.runs.predictions import Predictions
from lightning_prompts.runs.prompt import Prompt, load_prompt
from lightning_prompts.runs.prompt_list import PromptList
from lightning_prompts.runs.results_of_test import Tested
from lightning_prompts.tasks.base import PromptTask
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.tuned import configuration_of, tuned

# Of configs/default.yaml what a Trainer of one's own needs as well; the logger is chosen by hand.
LEFT_OUT = ("logger", "precision")


def measures() -> list[Callback]:
    """The callbacks that measure a prompt at each validation and test, and keep what they find.

    Scrutability, faithfulness and baselines are logged; the prompt's tokens go to TensorBoard where
    it is there; a test leaves test.json and a prediction predictions.jsonl in the run's folder; and
    numbers that are not finite end the run. `BestPrompt` beside them keeps the best prompt.
    """
    measuring: list[Callback] = [Scrutability(), Faithfulness(), PromptText(), Baselines()]
    return [*measuring, FiniteNumbers(), Rendered(), Tested(), Predictions(), PromptList()]


def fit(
    tuner: str | type[PromptTuner] = "soft",
    data: Any = None,
    template: str | Conversation = "{prompt} {text} Label:",
    verbalizer: Mapping[str, str | list[str]] | None = None,
    lm: str | FrozenLM = "gpt2",
    *,
    task: PromptTask | None = None,
    folder: str | Path = "logs",
    options: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    **of_task: Any,
) -> Prompt:
    """Learn a prompt, test it where there are test rows, and give the best one.

    The settings are those of the command line: configs/default.yaml and the tuner's own file.

    Args:
        tuner: `soft`, `pez`, `rlprompt`, `guided_search`, `gcg` or another name of configs/tuner,
            or a class.
        data: DataFrame, `datasets.Dataset` or `DatasetDict`, list of mappings, or path.
        template: Where the columns and `{prompt}` sit; the model answers after its end. Or a
            conversation, `{"chat": {"system": "{prompt}", "user": "{text}"}}`.
        verbalizer: Label to answer, or to a list of answers, mostly with a leading space; by
            default each label's own text behind a space.
        lm: A model's name, or one in memory.
        task: In place of the four before and of `of_task`, which make a `TextClassification`.
        folder: Where the run's folder is made.
        options: Of the tuner, over its tuned values: `{"prompt_length": 5}`.
        trainer: Of `L.Trainer`, over the defaults: `{"max_steps": 100}`.
        **of_task: Of `TextClassification`: `text_column="body"`, `label_column="queue"`, ...

    Returns:
        The prompt of the best validation, with its metrics, also of the test.

    Raises:
        PromptError: With what is missing or does not fit, in one sentence.
    """
    kind, configuration = _tuner(tuner)
    if task is None:
        if data is None:
            raise PromptError("Give data, rows with texts and labels; or a task.")
        model = FrozenLM(lm) if isinstance(lm, str) else lm
        words = None if verbalizer is None else dict(verbalizer)
        task = TextClassification(model, template, words, data=data, **of_task)
    given = {"seed": task.seed, **(options or {})}
    made = tuned(kind, given, configuration) | given
    learner = kind(task.lm, task.template, task.verbalizer, **made)
    best = BestPrompt()
    defaults = {**shipped("default.yaml")["trainer"], **configuration.get("trainer", {})}
    for name in LEFT_OUT:
        defaults.pop(name, None)
    chosen: dict[str, Any] = {**defaults, **(trainer or {})}
    callbacks = [*measures(), best, *chosen.pop("callbacks", ())]
    running = L.Trainer(**{"default_root_dir": folder, **chosen}, callbacks=callbacks)
    running.fit(learner, task)
    if task.has("test"):
        running.test(learner, task, ckpt_path="best", verbose=False)
    return load_prompt(best.folder, task.lm)


def _tuner(tuner: str | type[PromptTuner]) -> tuple[type[PromptTuner], Mapping[str, Any]]:
    """A tuner's class and its shipped configuration."""
    if not isinstance(tuner, str):
        return tuner, configuration_of(tuner)
    configuration = shipped(f"tuner/{tuner}.yaml")
    if not configuration:
        known = ", ".join(sorted(path.stem for path in shipped_files("tuner")))
        raise PromptError(f"There is no tuner {tuner!r}; known: {known}.")
    kind: Any = find_class(configuration["model"]["class_path"])
    return kind, configuration
