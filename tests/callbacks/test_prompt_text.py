"""What TensorBoard shows of a prompt, read back from its files and through its own renderer."""

import html
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.plugins.hparams import metadata
from torch import Tensor

from lightning_prompts.callbacks import Faithfulness, PromptText, Scrutability
from lightning_prompts.callbacks.prompt_text import code, prompt_neighbourhood, prompt_table
from lightning_prompts.tasks.classification import TextClassification
from lightning_prompts.tuners import PEZ, GuidedSearch, ManualPrompt, PromptTuner, SoftPrompt
from lightning_prompts.tuners.prompt_init import RECORD

from .conftest import LAST, MakeTask, Reference, learned, quick_trainer, written

HOSTILE = ["a", "`", "``` x", " | ", "|`|", "\n", "\t", "\x00\x1b[0m", "<b>x</b>", "\\", "*x*"]
THREE = {"max_steps": 3, "val_check_interval": 1, "check_val_every_n_epoch": None}


def cells(markdown: str) -> list[list[str]]:
    """Cells of the table that TensorBoard draws."""
    drawn = markdown_to_safe_html(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", drawn, re.DOTALL)
    pattern = re.compile(r"<td>(?:<code>)?(.*?)(?:</code>)?</td>", re.DOTALL)
    return [[html.unescape(cell) for cell in pattern.findall(row)] for row in rows[1:]]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_token_breaks_the_markup(text: str) -> None:
    drawn = cells(f"| token | distance |\n| --- | --- |\n| {code(text)} | 0.5 |\n| b | 0.7 |")
    assert drawn == [[repr(text), "0.5"], ["b", "0.7"]]


def test_table_has_a_token_a_row_with_what_is_known_of_it(
    make_task: MakeTask, reference: Reference
) -> None:
    task = make_task()
    tuner = learned(SoftPrompt, task)
    drawn = cells(prompt_table(tuner))
    ids = tuner.hard_prompt()
    cosines = torch.cosine_similarity(tuner.soft_prompt(), task.lm.embed(ids))
    assert [row[0] for row in drawn] == [repr(task.lm.decode([i])) for i in ids.tolist()]
    assert [float(row[2]) for row in drawn] == pytest.approx((1 - cosines).tolist(), abs=1e-4)
    for n in range(1, len(drawn) + 1):  # the mean of the first n is their log-perplexity
        mean = sum(float(row[1]) for row in drawn[:n]) / n
        assert mean == pytest.approx(reference.log_perplexity(ids[:n].tolist()), abs=6e-3)


def test_tokens_of_markup_keep_their_rows(make_task: MakeTask) -> None:
    tuner = written(make_task(), "|`\n<*\\`")
    drawn = cells(prompt_table(tuner))
    # Tokens alone have no distance from themselves.
    assert [[token] for token, _ in drawn] == [[repr(token)] for token in "|`\n<*\\`"]
    assert markdown_to_safe_html(prompt_table(tuner)).count("<code>") == 8  # and the whole text


@pytest.mark.parametrize("kind", [SoftPrompt, PEZ])
def test_neighbourhood_is_brute_force(kind: type[SoftPrompt], make_task: MakeTask) -> None:
    task = make_task()
    tuner = learned(kind, task)
    vectors, labels = prompt_neighbourhood(tuner, 4)
    table, soft = task.lm.embedding_table.double(), tuner.soft_prompt().detach().double()
    distances = 1 - torch.cosine_similarity(soft[:, None], table[None], dim=-1)  # (P, V)
    near = sorted({i for row in distances for i in row.argsort()[:4].tolist()})
    assert torch.equal(
        vectors, torch.cat([tuner.soft_prompt().detach(), task.lm.embed(torch.tensor(near))])
    )
    tokens = [repr(task.lm.decode([i])) for i in [*tuner.hard_prompt().tolist(), *near]]
    assert [token for token, _, _ in labels] == tokens
    assert [kind for _, kind, _ in labels] == ["prompt"] * 3 + ["token"] * len(near)
    far = [row[i] for row, i in zip(distances, tuner.hard_prompt(), strict=True)]
    far += list(distances.amin(0)[near])
    assert [float(d) for _, _, d in labels] == pytest.approx([float(d) for d in far], abs=1e-4)


class Worse(SoftPrompt):
    """Each step adds 2 to the prompt."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.prompt.data += 2.0
        return self.prompt.sum() * 0


def fit(
    tuner: PromptTuner, task: TextClassification, folder: Path, **kwargs: Any
) -> EventAccumulator:
    """Fit and read TensorBoard's files."""
    logger = TensorBoardLogger(folder, name="run", default_hp_metric=False)
    best = ModelCheckpoint(monitor="val/step", save_on_train_epoch_end=False)
    quick_trainer(
        callbacks=[PromptText(neighbours=2), Scrutability(), Faithfulness(), best],
        enable_checkpointing=True,
        logger=logger,
        num_sanity_val_steps=1,
        **THREE | kwargs,
    ).fit(tuner, datamodule=task)
    events = EventAccumulator(logger.log_dir, size_guidance={"tensors": 0, "scalars": 0})
    return events.Reload()


def logging_steps(tuner: SoftPrompt) -> SoftPrompt:
    """Let every validation log its step, the lowest of which is the best: the first."""
    end = tuner.on_validation_epoch_end

    def also_step() -> None:
        end()
        tuner.log("val/step", float(tuner.global_step))

    tuner.on_validation_epoch_end = also_step  # type: ignore[method-assign]
    return tuner


def test_a_run_in_tensorboard(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(LAST)
    tuner = logging_steps(
        Worse(
            task.lm, task.template, task.verbalizer, prompt_length=3, seed=7, perplexity_weight=0.25
        )
    )
    start = tuner.prompt.detach().clone()
    events = fit(tuner, task, tmp_path)

    texts = events.Tensors("prompt/text_summary")
    assert [event.step for event in texts] == [1, 2, 3]
    last = texts[-1].tensor_proto.string_val[0].decode()
    assert last == prompt_table(tuner)

    (shown,) = tmp_path.glob("run/version_0/*/prompt")
    assert shown.parent.name == "00001"  # the best, not the last
    rows = (shown / "metadata.tsv").read_text().splitlines()
    vectors = (shown / "tensors.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["token", "kind", "distance"]
    assert len(rows) == len(vectors) + 1
    assert [row.split("\t")[1] for row in rows[1:4]] == ["prompt"] * 3
    best = torch.tensor([[float(x) for x in row.split("\t")] for row in vectors[:3]])
    # The last prompt is back in its place (weight decay has moved it a little, too).
    torch.testing.assert_close(best, start + 2, atol=1e-3, rtol=0)
    torch.testing.assert_close(tuner.prompt.detach(), start + 6, atol=1e-3, rtol=0)

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = metadata.parse_session_start_info_plugin_data(content).hparams
    assert {name: value.string_value or value.number_value for name, value in hparams.items()} == {
        "tuner": "soft",
        "task": task.slug,
        "lm": task.lm.label,
        "template": LAST,
        "prompt_length": 3,
        "perplexity_weight": 0.25,
        "projection": "cosine",
        "seed": 7,
        "lr": 1e-3,
    }
    for name in ("accuracy", "hard_loss", "log_perplexity", "round_trip"):
        (point,) = events.Scalars(f"val_best/{name}")
        curve = events.Scalars(f"val/{name}")
        assert len(curve) == 3  # no point that no validation made
        assert (point.step, point.value) == (1, curve[0].value)


def test_a_written_prompt_in_tensorboard(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    tuner = logging_steps(written(task, " a film"))  # type: ignore[arg-type, type-var]
    assert isinstance(tuner, ManualPrompt)
    events = fit(tuner, task, tmp_path)
    (text,) = events.Tensors("prompt/text_summary")
    assert "' a film'" in text.tensor_proto.string_val[0].decode()
    assert len(events.Scalars("val_best/accuracy")) == 1


def test_the_best_of_a_search_may_have_another_length(make_task: MakeTask, tmp_path: Path) -> None:
    """Chosen by another value than the objective, best.ckpt can be of an earlier incumbent."""
    task = make_task(LAST)
    parts = task.lm, task.template, task.verbalizer
    tuner = GuidedSearch(*parts, prompt_length=5, min_length=3, candidates=4)
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": {"token_ids": torch.tensor([9, 12, 30])}, RECORD: {}}, path)
    best = ModelCheckpoint(monitor="val/accuracy")
    best.best_model_path = str(path)
    logger = TensorBoardLogger(tmp_path, name="run", default_hp_metric=False)
    trainer = quick_trainer(callbacks=[best], logger=logger, enable_checkpointing=True)
    before = tuner.token_ids.clone()
    PromptText().write_best(trainer, tuner)
    (shown,) = tmp_path.glob("run/version_0/*/prompt/metadata.tsv")
    assert shown.read_text().count("\tprompt\t") == 3
    assert torch.equal(tuner.token_ids, before)


def test_without_checkpoints_the_present_prompt_is_shown(
    make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    logger = TensorBoardLogger(tmp_path, name="run", default_hp_metric=False)
    quick_trainer(callbacks=[PromptText()], logger=logger, **THREE).fit(
        learned(SoftPrompt, task), datamodule=task
    )
    assert len(list(tmp_path.glob("run/version_0/00003/prompt/tensors.tsv"))) == 1


@pytest.mark.parametrize("kind", [CSVLogger, None])
def test_other_loggers_are_left_alone(
    kind: type[CSVLogger] | None, make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    logger = kind(tmp_path) if kind else False
    quick_trainer(callbacks=[PromptText()], logger=logger, **THREE).fit(
        learned(SoftPrompt, task), datamodule=task
    )


def test_validate_adds_nothing_to_a_run(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    logger = TensorBoardLogger(tmp_path, name="run", default_hp_metric=False)
    trainer = quick_trainer(callbacks=[PromptText()], logger=logger)
    trainer.validate(learned(SoftPrompt, task), datamodule=task, verbose=False)
    assert "prompt/text_summary" not in EventAccumulator(logger.log_dir).Reload().Tags()["tensors"]
