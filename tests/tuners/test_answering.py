"""Tuners whose answers are phrases: losses, gradients, candidates, predictions, resumed runs."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_prompts.callbacks import Baselines, Faithfulness
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.lm.answers import AnswerScore
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer, Words
from lightning_prompts.runs.prompt import load_prompt
from lightning_prompts.tuners import PEZ, GuidedSearch, PromptTuner, RLPrompt, SoftPrompt
from lightning_prompts.tuners.rl.policy import PolicySettings
from lightning_prompts.tuners.search.allowed import Allowed, FilterSettings
from tests.answers import one_by_one
from tests.resuming import assert_resumes_after_a_signal

PHRASES: Words = {"negative": [" no way", " bad"], "positive": " no doubt"}
FIRST, LAST = "{prompt} {text} It was", "{text}{prompt}"
ROWS = {"A warm film": 1, "Dull": 0, "Fine work!": 1, "No plot": 0}
VALIDATION = {"Quiet and kind.": 1, "A mess.": 0, "So flat": 0}


class Watch(Callback):
    """Keeps the prompts in use, losses and gradients of steps, and of validations."""

    def __init__(self) -> None:
        self.steps: list[tuple[Tensor, float]] = []
        self.gradients: list[Tensor] = []
        self.validated: list[tuple[Tensor, dict[str, float]]] = []

    def on_train_batch_start(self, trainer, module, *args):
        self.before = module.prompt_embeddings().detach().double().clone()

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients += [p.grad.clone() for p in module.parameters() if p.grad is not None]

    def on_train_batch_end(self, trainer, *args):
        self.steps.append((self.before, float(trainer.callback_metrics["train/loss"])))

    def on_validation_end(self, trainer, module):
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.validated.append((module.prompt_embeddings().detach().double().clone(), logged))


def losses(
    lm: FrozenLM, text: str, score: str, prompts: Tensor, rows: dict[str, int], score_of: Any = None
) -> Tensor:
    """[K] Mean cross-entropy of prompts in float64; with `pmi` less what `score_of` scores."""
    exact = copy.deepcopy(lm).double()
    template = Template(text, exact)
    scores = one_by_one(exact, template, PHRASES, prompts, [*rows, ""])
    found = scores[score][:, :-1]
    if score_of is not None:
        (prior,) = one_by_one(exact, template, PHRASES, score_of[None], [""])["sum"][:, -1]
        found = scores["sum"][:, :-1] - prior
    targets = torch.tensor([*rows.values()]).repeat(len(prompts))
    nats = F.cross_entropy(found.flatten(0, 1), targets, reduction="none")
    return nats.view(len(prompts), -1).mean(1)


def fitted(tuner: PromptTuner, folder: Path, steps: int, *callbacks: Callback) -> Trainer:
    def loader(rows: dict[str, int]) -> DataLoader[Batch]:
        labels = list(PHRASES)
        batch = tuner.collate([{"text": t, "label": labels[i]} for t, i in rows.items()])
        return DataLoader([batch] * 2, batch_size=None)  # type: ignore[arg-type]

    options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
    options |= {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = Trainer(
        default_root_dir=folder, max_steps=steps, num_sanity_val_steps=0, log_every_n_steps=1,
        callbacks=list(callbacks), **options,
    )  # fmt: skip
    trainer.fit(tuner, loader(ROWS), loader(VALIDATION))
    return trainer


@pytest.mark.parametrize(
    ("text", "score"), [(FIRST, "sum"), (FIRST, "mean"), (FIRST, "pmi"), (LAST, "pmi")]
)
def test_the_loss_and_its_gradient(lm: FrozenLM, tmp_path: Path, text: str, score: AnswerScore):
    words = Verbalizer(PHRASES, lm, score)
    rate = partial(torch.optim.SGD, lr=0.5)
    tuner = SoftPrompt(lm, Template(text, lm), words, prompt_length=3, optimizer=rate)
    fitted(tuner, tmp_path, 4, watch := Watch())
    first, second = (prompt for prompt, _ in watch.validated)  # after steps 2 and 4
    priors = [watch.steps[0][0]] * 2 + [first] * 2
    for (prompt, loss), gradient, prior in zip(watch.steps, watch.gradients, priors, strict=True):
        own = prompt.requires_grad_()
        given = prior.detach() if score == "pmi" else None
        (expected,) = losses(lm, text, score, own[None], ROWS, given)
        assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
        (grad,) = torch.autograd.grad(expected, own)
        torch.testing.assert_close(gradient.double(), grad, rtol=1e-3, atol=1e-5)
    for prompt, logged in watch.validated:
        with torch.no_grad():
            (expected,) = losses(lm, text, score, prompt[None], VALIDATION)
        assert logged["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    assert not torch.equal(first, second)


def pez(*parts: Any) -> PEZ:
    return PEZ(*parts, prompt_length=3)


def rlprompt(*parts: Any) -> RLPrompt:
    policy = PolicySettings(mlp_size=16, top_k=20)
    return RLPrompt(*parts, prompt_length=3, prompts_per_step=4, candidates=2, policy=policy)


def guided(*parts: Any) -> GuidedSearch:
    return GuidedSearch(*parts, prompt_length=3, candidates=6, beam=2, race=[2], contenders=1)


@pytest.mark.parametrize("score", ["mean", "pmi"])
@pytest.mark.parametrize("make", [pez, rlprompt, guided])
@torch.no_grad()
def test_hard_prompts_are_scored_each_by_itself(
    make: Any, lm: FrozenLM, tmp_path: Path, score: AnswerScore
):
    tuner = make(lm, Template(LAST, lm), Verbalizer(PHRASES, lm, score))
    with torch.enable_grad():
        fitted(tuner, tmp_path, 2, watch := Watch())
    (prompt, logged) = watch.validated[-1]
    (expected,) = losses(lm, LAST, score, prompt[None], VALIDATION)
    assert logged["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    if isinstance(tuner, GuidedSearch):  # what the race has found of the last step's batch
        table = torch.tensor(tuner.beam)
        found = losses(lm, LAST, score, lm.embed(table).double(), ROWS)
        raced = [tuner.ledger[tuple(ids)].components["train_loss"] for ids in table.tolist()]
        assert raced == pytest.approx(found.tolist(), rel=1e-4)


@torch.no_grad()
def test_callbacks_give_each_prompt_its_own_part(lm: FrozenLM, tmp_path: Path):
    words = Verbalizer(PHRASES, lm, "pmi")
    tuner = SoftPrompt(lm, Template(FIRST, lm), words, prompt_length=2)
    tuner.prompt.data += torch.randn(tuner.prompt.shape, generator=torch.manual_seed(1))
    baselines = Baselines(text=" What?")
    with torch.enable_grad():
        fitted(tuner, tmp_path, 2, watch := Watch(), Faithfulness(), baselines)
    soft, logged = watch.validated[-1]
    hard = lm.embed(tuner.hard_prompt()).double()
    of_soft, of_hard = losses(lm, FIRST, "pmi", torch.stack([soft, hard]), VALIDATION).tolist()
    assert logged["val/hard_loss"] == pytest.approx(of_hard, rel=1e-5)
    assert logged["val/loss_differential"] == pytest.approx(abs(of_hard - of_soft), abs=1e-5)
    written = lm.embed(torch.tensor(lm.encode(" What?"))).double()
    for name, prompt in (("no prompt", written[:0]), ("written prompt", written)):
        (expected,) = losses(lm, FIRST, "pmi", prompt[None], VALIDATION)
        assert baselines.results[name]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_filters_keep_out_what_tells_answers_apart(lm: FrozenLM):
    words = Verbalizer({"0": " it is bad", "1": [" it is great", " a"]}, lm)
    allowed = Allowed(lm, words, FilterSettings(forbid_verbalizer=True))
    forbidden = {" bad", " great", "a", "A"}
    texts = lm.token_strings(range(lm.vocab_size))
    assert {t for i, t in enumerate(texts) if not allowed.mask[i]} - {texts[0]} == forbidden


# ---- from the command line

OPTIONS = ("--data.answer_score", "pmi", "--data.verbalizer", json.dumps(PHRASES))


@pytest.fixture(params=["soft", "guided_search"])
def fit(request, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch):
    """Builds a short fit in an empty folder."""
    monkeypatch.chdir(tmp_path)
    own = {
        "soft": ("--trainer.callbacks", "EMAWeightAveraging"),
        "guided_search": ("--model.candidates", "4"),
    }

    def build(name: str, *args: str, run: bool = True) -> PromptCLI:
        return main(
            [
                *("fit", "--config", f"configs/tuner/{request.param}.yaml"),
                *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
                *("--data.path", str(review_folder), "--data.batch_size", "8", *OPTIONS),
                *("--trainer.max_steps", "6", "--trainer.val_check_interval", "2"),
                *("--model.prompt_length", "3", "--trainer.log_every_n_steps", "1"),
                *("--trainer.enable_progress_bar", "false", "--experiment", name),
                *own[request.param],
                *args,
            ],
            run=run,
            show=False,
        )

    return build


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(fit, capsys: pytest.CaptureFixture[str]):
    fit("full")
    assert "' no doubt' = ' ' + 'n' + 'o' + ' ' + 'd'" in capsys.readouterr().err
    full = Path("logs/full/version_0")
    assert_resumes_after_a_signal(fit, 3, full, ["state_dict", "optimizer_states"])


def test_predictions_and_the_prompt_by_itself(
    lm: FrozenLM, lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    parts = ("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder), *OPTIONS)
    parts += ("--data.path", str(review_folder), "--trainer.enable_progress_bar", "false")
    manual = ("--config", "configs/tuner/manual.yaml", "--model.text", " So:")
    main(["fit", *manual, *parts, "--experiment", "own"], show=False)
    run = Path("logs/own/version_0")
    config = ("--config", str(run / "config.yaml"), "--ckpt_path", "best")
    main(["predict", *config], show=False)
    lines = [json.loads(x) for x in (run / "predictions.jsonl").read_text().splitlines()]
    texts = [json.loads(x)["text"] for x in (review_folder / "test.jsonl").read_text().splitlines()]
    prompt = load_prompt(run, lm)
    assert prompt.record.answer_score == "pmi"
    assert prompt.verbalizer.words == tuple(PHRASES.values())
    exact = copy.deepcopy(lm).double()
    rows = exact.embed(torch.tensor(prompt.ids))[None]
    scores = one_by_one(exact, Template(prompt.template.text, exact), PHRASES, rows, [*texts, ""])
    expected = scores["pmi"][0, :-1].softmax(-1).tolist()
    for got in ([line["probabilities"] for line in lines], prompt.probabilities(texts)):
        for own, shares in zip(got, expected, strict=True):
            assert list(own.values()) == pytest.approx(shares, abs=1e-5)
    with pytest.raises(SystemExit):
        main(["validate", *config, "--data.answer_score", "mean"], show=False)
