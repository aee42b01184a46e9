"""Makes, trains and watches small RLPrompt tuners."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners import ManualPrompt, RLPrompt
from lightning_prompts.tuners.rl.policy import PolicySettings

ROWS = [("A warm and funny film", 1), ("Dull", 0), ("Fine work!", 1), ("No plot, no jokes", 0)]
VALIDATION = [("Quiet, clever and kind.", 1), ("A mess.", 0), ("So flat", 0)]
WORDS = {"negative": " bad", "positive": " good"}
P, K = 3, 6
LAST = "{text}{prompt}"


class Watch(Callback):
    """Keeps what is logged and the gradients of every step."""

    def __init__(self) -> None:
        self.validations: list[dict[str, float]] = []
        self.train: list[dict[str, float]] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = {n: p.grad for n, p in pl_module.named_parameters() if p.grad is not None}
        self.gradients.append({name: grad.clone() for name, grad in grads.items()})

    def on_train_batch_end(self, trainer, *args):
        logged = trainer.callback_metrics.items()
        self.train.append({k: float(v) for k, v in logged if k.startswith("train/")})

    def on_validation_end(self, trainer, pl_module):
        logged = trainer.callback_metrics.items()
        self.validations.append({k: float(v) for k, v in logged if k.startswith("val/")})


def build(
    lm: FrozenLM, text: str = LAST, policy: Mapping[str, Any] | None = None, **kwargs: Any
) -> RLPrompt:
    options = {"prompt_length": P, "prompts_per_step": K, "candidates": 2} | kwargs
    options.setdefault("optimizer", partial(torch.optim.Adam, lr=1e-2))
    settings = PolicySettings(**({"mlp_size": 32, "top_k": 20} | dict(policy or {})))
    parts = Template(text, lm), Verbalizer(WORDS, lm)
    return RLPrompt(lm, *parts, policy=settings, **options)


def make_batch(tuner: RLPrompt | ManualPrompt, rows: list[tuple[str, int]] = ROWS) -> Batch:
    examples = [tuner.template.encode({"text": text}) for text, _ in rows]
    return collate(examples, [label for _, label in rows], range(len(rows)))


def fit(tuner: Any, folder: Path, steps: int = 3, batches: int = 1, **kwargs: Any) -> Trainer:
    """`batches` of the same rows an epoch, and a validation at the end of each."""
    loader = DataLoader([make_batch(tuner)] * batches, batch_size=None)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "max_steps": steps}
    options |= {"enable_checkpointing": False, "log_every_n_steps": 1}
    trainer = Trainer(default_root_dir=folder, **(options | kwargs))
    trainer.fit(tuner, loader, DataLoader([make_batch(tuner, VALIDATION)], batch_size=None))
    return trainer


def ids_of(tuner: RLPrompt) -> tuple[int, ...]:
    return tuple(tuner.hard_prompt().tolist())


def reference_rewards(tuner: RLPrompt, prompts: Tensor) -> Tensor:
    """[K] One prompt and one example at a time, by whole strings of tokens."""
    lm, raw = tuner.lm, []
    before, after = tuner.template.text.split("{prompt}")
    for prompt in prompts.tolist():
        total = 0.0
        for text, label in ROWS:
            ids = [lm.encode(piece.format(text=text)) for piece in (before, after)]
            logits = lm.model(torch.tensor([ids[0] + prompt + ids[1]])).logits[0, -1].double()
            shares = logits[tuner.verbalizer.token_ids].softmax(-1).tolist()
            gap = shares[label] - shares[1 - label]
            total += (200 if gap > 0 else 180) * gap / len(ROWS)
        raw.append(total)
    return torch.tensor(raw)


def reference_nats(lm: FrozenLM, prompts: Tensor) -> Tensor:
    """[K] Nats per token."""
    ids = torch.cat([torch.full((len(prompts), 1), lm.bos_id), prompts], dim=1)
    log_p = lm.model(ids).logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, prompts[..., None])[..., 0].mean(1)


def move(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


@pytest.fixture
def rl() -> SimpleNamespace:
    """Functions that the tests of RLPrompt share."""
    shared = (build, make_batch, fit, Watch, ids_of, reference_rewards, reference_nats, move)
    names = {thing.__name__: thing for thing in shared}
    return SimpleNamespace(**names, rows=ROWS, validation=VALIDATION, words=WORDS)
