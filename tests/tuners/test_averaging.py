"""Callbacks that average weights average the prompt alone, and a run says whose numbers it has."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners import GuidedSearch, ManualPrompt, SoftPrompt
from lightning_prompts.tuners.prompt_init import FromVocabulary
from tests.resuming import assert_same, last, logged

DECAY = 0.9
EMA = ("--trainer.callbacks", "EMAWeightAveraging", "--trainer.callbacks.decay", str(DECAY))
MEAN, SWA = "WeightAveraging", "StochasticWeightAveraging"
RUN = Path("logs/soft-demo/version_0")


class Steps(Callback):
    """Keeps the prompt that each step leaves."""

    def __init__(self) -> None:
        self.prompts: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.prompts.append(pl_module.prompt.detach().double().clone())


@pytest.fixture
def fit(lm_folder: Path, review_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Builds a short fit in an empty folder, with steps so large that the average lags behind."""
    monkeypatch.chdir(tmp_path)

    def build(*args: str, tuner: str = "soft", steps: int = 4, run: bool = False) -> PromptCLI:
        return main(
            [
                *("fit", "--config", f"configs/tuner/{tuner}.yaml"),
                *("--config", "configs/task/demo.yaml", "--lm.name", str(lm_folder)),
                *("--data.path", str(review_folder), "--data.batch_size", "8"),
                *("--trainer.max_steps", str(steps), "--trainer.val_check_interval", "2"),
                *("--trainer.enable_progress_bar", "false", "--trainer.precision", "32-true"),
                *args,
            ],
            run=run,
        )

    return build


def average(prompts: list[torch.Tensor], decay: float = DECAY) -> torch.Tensor:
    """[P, H] After the last step; the first step's prompt is where it begins."""
    mean = prompts[0]
    for prompt in prompts[1:]:
        mean = decay * mean + (1 - decay) * prompt
    return mean


def scores(cli: PromptCLI, prompt: torch.Tensor, folder: Path) -> tuple[float, float]:
    """Loss and accuracy over the validation rows, each by itself, in float64."""
    lm = FrozenLM(str(folder))
    lm.model.double()
    words = cli.model.verbalizer
    losses, right = [], []
    for line in Path(cli.datamodule.path, "validation.jsonl").read_text().splitlines():
        row = json.loads(line)
        text = lm.embed(torch.tensor(lm.encode(f" {row['text']} It was")))
        embeds = torch.cat([prompt, text])[None]
        logits = lm.model(inputs_embeds=embeds).logits[0, -1, words.token_ids]
        label = words.index(row["label"])
        losses.append(float(F.cross_entropy(logits, torch.tensor(label))))
        right.append(int(logits.argmax()) == label)
    return sum(losses) / len(losses), sum(right) / len(right)


def nearest(cli: PromptCLI, prompt: torch.Tensor) -> list[int]:
    """By cosine, over the vocabulary without special tokens."""
    table = F.normalize(cli.model.lm.embedding_table.double(), dim=1)
    likeness = F.normalize(prompt, dim=1) @ table.T
    likeness[:, cli.model.lm.special_ids] = -2
    return likeness.argmax(1).tolist()


@pytest.mark.parametrize("tuner", ["soft", pytest.param("pez", marks=pytest.mark.slow)])
def test_the_table_is_of_the_average(fit, tuner: str, lm_folder: Path, capsys):
    cli = fit(*EMA, "--model.optimizer.lr", "0.5", "--model.lr_scheduler", "null", tuner=tuner)
    lm = {name: value.clone() for name, value in cli.model.lm.state_dict().items()}
    words = cli.model.class_ids.clone()
    cli.trainer.callbacks.insert(0, steps := Steps())
    cli.start()
    run = Path(f"logs/{tuner}-demo/version_0")
    written = json.loads((run / "prompt.json").read_text())
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    mean = average(steps.prompts[: written["step"]])
    assert (mean - steps.prompts[written["step"] - 1]).abs().max() > 0.1
    torch.testing.assert_close(best["state_dict"]["prompt"].double(), mean, rtol=0, atol=1e-6)
    assert set(best["state_dict"]) == {"prompt"}
    ids = nearest(cli, mean)
    assert written["ids"] == best["lightning_prompts"]["ids"] == ids
    used = mean if tuner == "soft" else cli.model.lm.embed(torch.tensor(ids)).double()
    loss, accuracy = scores(cli, used, lm_folder)
    assert written["metrics"]["val/loss"] == pytest.approx(loss, abs=2e-6)
    assert written["metrics"]["val/accuracy"] == pytest.approx(accuracy)
    assert written["averaged_by"] == best["lightning_prompts"]["averaged_by"]
    said = capsys.readouterr().out
    assert f"{loss:.3f}" in said
    assert "the average that EMAWeightAveraging keeps" in said
    # What is frozen, and what is an index, is what it was.
    assert torch.equal(cli.model.class_ids, words)
    assert all(torch.equal(v, lm[k]) for k, v in cli.model.lm.state_dict().items())
    for name in ("best", "last"):
        main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", name])
        said = capsys.readouterr().out
        assert "the average that EMAWeightAveraging keeps" in said
        assert name == "last" or f"{loss:.3f}" in said


@pytest.mark.slow
def test_the_average_does_not_touch_the_training(fit):
    plain, averaged = Steps(), Steps()
    for steps, args in ((plain, ()), (averaged, EMA)):
        cli = fit("--model.optimizer.lr", "0.5", *args)
        cli.trainer.callbacks.insert(0, steps)
        cli.start()
    assert all(map(torch.equal, plain.prompts, averaged.prompts))
    assert len(plain.prompts) == 4


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [False, True])
def test_an_averaged_run_goes_on_where_it_was_stopped(fit, epochs: bool):
    args = (*EMA, "--model.lr_scheduler", "null")
    if epochs:  # of three steps
        args += ("--trainer.callbacks.update_every_n_steps", "0")
        args += ("--trainer.callbacks.update_starting_at_epoch", "0")
    fit(*args, "--experiment", "full", steps=8).start()
    fit(*args, steps=4).start()
    config = str(RUN / "config.yaml")
    main(["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_steps", "8"])
    full = Path("logs/full/version_0")
    own, expected = last(RUN), last(full)
    for key in ("state_dict", "optimizer_states", "averaging", "lightning_prompts"):
        assert_same(own[key], expected[key], key)
    assert not torch.equal(
        own["state_dict"]["prompt"], own["averaging"]["current_model_state"]["prompt"]
    )
    values = logged(RUN), logged(full)
    assert values[0]["val/loss"] == values[1]["val/loss"]


@pytest.mark.slow
def test_another_average_is_another_run(fit, capsys):
    fit(*EMA).start()
    config = str(RUN / "config.yaml")
    again = ["fit", "--config", config, "--ckpt_path", "last", "--trainer.max_steps", "6"]
    for args in (("--trainer.callbacks.decay", "0.5"), ("--trainer.callbacks", "null")):
        with pytest.raises(SystemExit) as refused:
            main([*again, *args])
        assert refused.value.code == 2
        assert "--trainer.callbacks EMAWeightAveraging (" in capsys.readouterr().err


@pytest.mark.slow
def test_until_there_is_an_average_the_prompt_is_measured(fit, capsys):
    cli = fit(*EMA, "--trainer.callbacks.update_starting_at_step", "99")
    cli.trainer.callbacks.insert(0, steps := Steps())
    cli.start()
    written = json.loads((RUN / "prompt.json").read_text())
    saved = torch.load(RUN / "checkpoints/best.ckpt", weights_only=True)["state_dict"]["prompt"]
    assert torch.equal(saved.double(), steps.prompts[written["step"] - 1])
    assert written["averaged_by"] is None
    assert "average" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuner", "args", "message"),
    [
        ("soft", [SWA, "--trainer.callbacks.swa_lrs", "0.1"], "after the last validation"),
        ("soft", [MEAN, f"--trainer.callbacks+={EMA[1]}"], f"has {MEAN} and {EMA[1]}"),
        ("soft", [MEAN, "--trainer.precision", "bf16-true"], "half precision"),
        ("soft", [EMA[1], "--trainer.callbacks.device", "cuda"], f"callbacks {EMA[1]}"),
        ("rlprompt", [EMA[1]], "RLPrompt's prompt is tokens"),
        ("gcg", [EMA[1]], "GuidedSearch's prompt is tokens"),
        ("manual", [MEAN], "ManualPrompt's prompt is tokens"),
    ],
)
def test_what_has_no_average_is_refused(fit, tuner: str, args: list[str], message: str, capsys):
    if "cuda" in args and torch.cuda.is_available():
        pytest.skip("there is such a device")
    with pytest.raises(SystemExit) as refused:
        fit("--trainer.callbacks", *args, tuner=tuner, run=True)
    assert refused.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said
    assert "Traceback" not in said


# ---- ids, in Python


@pytest.mark.parametrize("kind", [SoftPrompt, ManualPrompt, GuidedSearch])
def test_ids_are_no_buffers(kind: type, lm_folder: Path):
    lm = FrozenLM(str(lm_folder))
    words = Verbalizer({"a": " bad", "b": " good"}, lm)
    options = {"text": "so"} if kind is ManualPrompt else {"prompt_length": 3}
    tuner = kind(lm, Template("{prompt}{text}", lm), words, **options)
    assert [name for name, _ in tuner.named_buffers() if not name.startswith("lm.")] == []
    ids = tuner.class_ids.tolist(), tuner.hard_prompt().tolist()
    tuner.half().double().type(torch.bfloat16).to(torch.float32)
    assert (tuner.class_ids.tolist(), tuner.hard_prompt().tolist()) == ids
    kept = AveragedModel(
        tuner, avg_fn=lambda mean, new, n: 0.9 * mean + 0.1 * new, use_buffers=True
    )
    for _ in range(3):
        kept.update_parameters(tuner)
    assert (kept.module.class_ids.tolist(), kept.module.hard_prompt().tolist()) == ids
    tuner.to("meta")
    assert tuner.class_ids.device.type == tuner.special_ids.device.type == "meta"


def test_a_trainer_in_python_averages_the_prompt_alone(plain_fit):
    tuner, trainer = plain_fit(WeightAveraging())
    assert tuner.averaged_by == "WeightAveraging"
    torch.testing.assert_close(tuner.prompt.detach().double(), trainer.mean, rtol=0, atol=1e-6)
    with pytest.raises(PromptError, match="averaged nothing but this one has EMAWeightAveraging"):
        plain_fit(EMAWeightAveraging(), resume=True)


@pytest.fixture
def plain_fit(lm: FrozenLM, tmp_path: Path):
    """Fits a soft prompt by a plain trainer, which gets the mean of its steps' prompts."""

    def run(callback: Callback, resume: bool = False) -> tuple[SoftPrompt, Trainer]:
        words = Verbalizer({"a": " bad", "b": " good"}, lm)
        template = Template("{prompt}{text}", lm)
        tuner = SoftPrompt(lm, template, words, prompt_length=3, init=FromVocabulary(top=50))
        batch = collate([template.encode({"text": t}) for t in ("so", "as")], [0, 1], range(2))
        loader = DataLoader([batch] * 3, batch_size=None)
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            max_steps=3,
            accelerator="cpu",
            default_root_dir=tmp_path,
            callbacks=[callback, steps := Steps()],
            enable_checkpointing=False,
            **options,
        )
        if resume:
            plain = SoftPrompt(lm, template, words, prompt_length=3)
            other = Trainer(max_steps=1, accelerator="cpu", enable_checkpointing=False, **options)
            other.fit(plain, loader)
            other.save_checkpoint(tmp_path / "plain.ckpt")
            trainer.fit(tuner, loader, ckpt_path=tmp_path / "plain.ckpt")
        trainer.fit(tuner, loader)
        trainer.mean = torch.stack(steps.prompts).mean(0)
        return tuner, trainer

    return run
