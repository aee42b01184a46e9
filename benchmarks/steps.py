"""Training steps: the soft prompt against PEFT, PEZ against the soft prompt, the loop, memory."""

import gc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from benchmarks.installed import not_installed
from benchmarks.lines import Line, Measured, alternate, apart
from benchmarks.setting import PROMPT_FIRST, Setting, nearby, verbalizer
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.tuners import PEZ, SoftPrompt

LR = 1e-2
SHIPPED, ONE_LOGIT, SOFT = "PEFT as shipped", "PEFT, logits_to_keep=1", "our soft step"
EAGER, COMPILED = "", ", compiled"
# Relative difference of losses and gradients that counts as the same: rounding, no more. In
# bfloat16 both ways round every activation to 3 digits, each in its own order.
MOST = {"cpu": {"loss": 1e-5, "gradient": 1e-5}, "cuda": {"loss": 2e-2, "gradient": 1e-1}}


class Shape(NamedTuple):
    """P prompt tokens, T text tokens, B examples, and the bars of the lines with this shape."""

    prompt: int
    text: int
    batch: int
    shipped: float | None
    one_logit: float | None
    pez: float | None

    def __str__(self) -> str:
        return f"P={self.prompt}, T={self.text}, B={self.batch}"


SHAPES = {
    "cpu": [Shape(100, 40, 16, 2.7, 2.4, 1.10), Shape(10, 32, 32, 1.5, 1.15, None)],
    "cuda": [Shape(10, 32, 32, 6.5, None, 1.15), Shape(100, 160, 32, 3.6, None, 1.10)],
}
PRECISION = {"cpu": "fp32", "cuda": "bf16"}


class Learner(NamedTuple):
    """A prompt and the loss that a step takes of it."""

    prompt: nn.Parameter
    loss: Callable[[], Tensor]

    def stepper(self) -> Callable[[], None]:
        """A training step as a function: forward, backward, optimizer."""
        optimizer = torch.optim.AdamW([self.prompt], lr=LR, weight_decay=0.0)

        def step() -> None:
            optimizer.zero_grad()
            self.loss().backward()
            optimizer.step()

        return step

    def evaluated(self) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient [P, H]."""
        loss = self.loss()
        (gradient,) = torch.autograd.grad(loss, self.prompt)
        return loss, gradient


def same(line: Line, ours: Learner, theirs: Learner, device: str) -> str:
    """How far losses and gradients are apart, in words; an error where that is too far."""
    most = MOST[device]
    (our_loss, our_gradient), (loss, gradient) = ours.evaluated(), theirs.evaluated()
    return ", ".join(
        [
            apart(line.work, "loss", our_loss, loss, most["loss"]),
            apart(line.work, "gradient", our_gradient, gradient, most["gradient"]),
        ]
    )


def timing(setting: Setting) -> dict[str, int]:
    """Options of `alternate`: a GPU's steps take milliseconds, and compiling several calls."""
    on_gpu = setting.device == "cuda"
    return {"repetitions": setting.repetitions, "calls": 20 if on_gpu else 1, "warm_up": 1}


# ---- ways


def tuner_of(kind: type[SoftPrompt], lm: FrozenLM, setting: Setting, shape: Shape) -> SoftPrompt:
    """A tuner with the prompt first."""
    tuner = kind(lm, Template(PROMPT_FIRST, lm), verbalizer(lm), prompt_length=shape.prompt)
    return tuner.to(setting.device)


def batch_of(tuner: SoftPrompt, setting: Setting, shape: Shape) -> Batch:
    """The same texts for every tuner."""
    return setting.batch(tuner.lm, tuner.template, shape.batch, shape.text)


def product(tuner: SoftPrompt, batch: Batch) -> Learner:
    """The tuner's own training step; cross-entropy over the verbalizer's words."""
    return Learner(tuner.prompt, lambda: tuner.training_step(batch, 0))


def over_vocabulary(tuner: SoftPrompt, batch: Batch) -> Learner:
    """The same forward pass under PEFT's loss; never timed, only compared."""
    answers = tuner.class_ids[batch["labels"]]

    def loss() -> Tensor:
        return F.cross_entropy(tuner.lm.logits(tuner.answer_hidden(tuner.prompt, batch)), answers)

    return Learner(tuner.prompt, loss)


def peft_model(setting: Setting, start: Tensor) -> Any:
    """PEFT's prompt tuning on the same weights, in eval mode (no dropout), at the same prompt."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    base = GPT2LMHeadModel.from_pretrained(
        setting.folder, dtype=getattr(torch, setting.dtype), attn_implementation="sdpa"
    )
    config = PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=len(start))
    model = get_peft_model(base, config).to(setting.device).eval()
    with torch.no_grad():
        model.prompt_encoder["default"].embedding.weight.copy_(start)
    return model


def peft_learners(model: Any, tuner: SoftPrompt, batch: Batch) -> dict[str, Learner]:
    """PEFT as its documentation trains, and with logits of the last position alone."""
    answers, ids = tuner.class_ids[batch["labels"]], batch["after_ids"]
    # The answer is a part of the input there: labels are shifted, and it is the last one's.
    whole = torch.cat([ids, answers[:, None]], dim=1)
    labels = torch.full_like(whole, -100)
    labels[:, -1] = answers
    mask = torch.ones_like(whole)
    prompt = model.prompt_encoder["default"].embedding.weight

    def shipped() -> Tensor:
        return model(input_ids=whole, attention_mask=mask, labels=labels).loss

    def one_logit() -> Tensor:
        logits = model(input_ids=ids, attention_mask=mask[:, 1:], logits_to_keep=1).logits[:, -1]
        return F.cross_entropy(logits[:, tuner.class_ids].float(), batch["labels"])

    return {SHIPPED: Learner(prompt, shipped), ONE_LOGIT: Learner(prompt, one_logit)}


# ---- lines


def soft(setting: Setting) -> Iterator[Line]:
    """A soft step against PEFT's."""
    kinds = [EAGER] if setting.device == "cpu" else [EAGER, COMPILED]
    why_not = setting.missing or not_installed(["peft"])
    for shape in SHAPES[setting.device]:
        bars = {SHIPPED: shape.shipped, ONE_LOGIT: shape.one_logit}
        lines = {
            (kind, peer): Line(
                f"soft step, {shape}, {PRECISION[setting.device]}{kind}",
                peer,
                asked if kind == kinds[-1] else None,
            )
            for kind in kinds
            for peer, asked in bars.items()
        }
        if why_not:
            yield from (line.not_run(why_not) for line in lines.values())
            continue
        tuners = {
            kind: tuner_of(
                SoftPrompt, setting.lm(**(setting.compile if kind else {})), setting, shape
            )
            for kind in kinds
        }
        first = tuners[EAGER]
        batch = batch_of(first, setting, shape)
        peers = peft_learners(peft_model(setting, first.prompt.detach()), first, batch)
        words = {}
        for (kind, peer), line in lines.items():
            like = over_vocabulary if peer == SHIPPED else product
            words[kind, peer] = same(line, like(tuners[kind], batch), peers[peer], setting.device)
        ways = {name: learner.stepper() for name, learner in peers.items()}
        ways |= {kind: product(tuner, batch).stepper() for kind, tuner in tuners.items()}
        measured = alternate(ways, **timing(setting))
        for (kind, peer), line in lines.items():
            yield line.result(measured[peer], measured[kind], words[kind, peer])


def pez(setting: Setting) -> Iterator[Line]:
    """A PEZ step against a soft step."""
    for shape in SHAPES[setting.device]:
        kind = COMPILED if setting.compile else EAGER
        work = f"PEZ step, {shape}, {PRECISION[setting.device]}{kind}"
        line = Line(work, SOFT, shape.pez, cost=True)
        if setting.missing:
            yield line.not_run(setting.missing)
            continue
        lm = setting.lm(**setting.compile)
        ours, theirs = (tuner_of(kind, lm, setting, shape) for kind in (PEZ, SoftPrompt))
        with torch.no_grad():
            ours.prompt += nearby(ours.prompt)
            theirs.prompt.copy_(lm.embed(ours.hard_prompt()))  # what PEZ projects to
        batch = batch_of(ours, setting, shape)
        words = same(line, product(ours, batch), product(theirs, batch), setting.device)
        ways = {"theirs": product(theirs, batch), "ours": product(ours, batch)}
        measured = alternate({k: way.stepper() for k, way in ways.items()}, **timing(setting))
        yield line.result(measured["theirs"], measured["ours"], words)


def memory(setting: Setting) -> Iterator[Line]:
    """Peak memory of a step on a GPU, weights included, each way alone on the device."""
    shape = SHAPES["cuda"][1]
    line = Line(f"peak memory of a soft step, {shape}, bf16", SHIPPED, 0.6, cost=True)
    if setting.device == "cpu":
        return
    if why_not := setting.missing or not_installed(["peft"]):
        yield line.not_run(why_not)
        return
    gc.collect()  # compiled models of other lines hold on to themselves
    torch.cuda.empty_cache()
    tuner = tuner_of(SoftPrompt, setting.lm(), setting, shape)
    batch = batch_of(tuner, setting, shape)
    model = peft_model(setting, tuner.prompt.detach())
    peer = peft_learners(model, tuner, batch)[SHIPPED]
    words = same(line, over_vocabulary(tuner, batch), peer, setting.device)
    peaks: dict[str, list[float]] = {"theirs": [], "ours": []}
    ways = {"theirs": (peer, model, tuner.lm), "ours": (product(tuner, batch), tuner.lm, model)}
    for _ in range(setting.repetitions):
        for name, (learner, own, other) in ways.items():
            other.cpu()
            own.to(setting.device)
            step = learner.stepper()
            step()  # allocates the optimizer's state
            torch.cuda.reset_peak_memory_stats()
            step()
            torch.cuda.synchronize()
            peaks[name].append(torch.cuda.max_memory_allocated() / 2**20)
    theirs, ours = (Measured(values, "MiB") for values in peaks.values())
    yield line.result(theirs, ours, words)
