"""RLPrompt: a policy learns to write hard prompts (Deng et al. 2022, arXiv:2205.12548)."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MetricCollection

from lightning_prompts.files.drawing import seed_at
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import HALF_WEIGHTS
from lightning_prompts.files.option_types import (
    MOST,
    CountOrZero,
    Length,
    NotNegative,
    Range,
    Share,
    ShareOfSome,
    Symbol,
)
from lightning_prompts.files.stages import Stage
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.nearest import nearest_tokens
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.incumbent import IncumbentTuner
from lightning_prompts.tuners.prompt_init import PromptInit
from lightning_prompts.tuners.rewards import ClassificationGap, Reward
from lightning_prompts.tuners.rewards.base import PromptMeasures, standardise
from lightning_prompts.tuners.rewards.scrutability import Mix, mix_rewards
from lightning_prompts.tuners.rl import soft_q
from lightning_prompts.tuners.rl.policy import Policy, PolicySettings, Sampled, other_writer
from lightning_prompts.tuners.search.ledger import DOUBT, Ids, Ledger
from lightning_prompts.tuners.search.scoring import PromptScorer, Scored

LISTED = 100  # prompts in prompts.jsonl beside those that were validated
Several = Annotated[int, Range(2, MOST)]  # rewards are standardised over them


class RLPrompt(IncumbentTuner):
    """Samples prompts from a policy, scores them, and updates the policy.

    Reward: R = (1 - alpha) * R_task + alpha * R_scrutability, standardised over the step's
    prompts, then shaped linearly. At each validation of `fit` the best prompts written since the
    last one, and the policy's greedy prompt, are scored; the best ever is the *incumbent*, which
    is the hard prompt, in use, saved and measured as any other tuner's.

    Args:
        prompt_length: P, the length of every prompt.
        policy: What the policy is made of.
        reward: Of the task.
        alpha: Weight of readability in the reward, in [0, 1].
        mix: Standardise both terms before they are mixed, or take them raw.
        scrutability_scale: With `mix: raw`, a factor for -log PPL.
        loss: `soft_q` as published; `reinforce` with the mean of the other prompts as baseline;
            `grpo`, which divides by their standard deviation as well.
        kl_weight: Of the divergence from the frozen language model, in nats for a standardised
            reward of 1: with `soft_q` the model is the prior of the soft-optimal policy, else the
            divergence is taken from the reward. 0 leaves it out, as published.
        entropy_weight: Of an entropy bonus in the loss.
        prompts_per_step: K.
        target_rate: Polyak rate of the target network, before each step.
        init: A prompt to start from: it is the first incumbent, and the policy begins around it.
        candidates: Prompts beside the greedy one that each validation scores.
        lm, template, verbalizer, **kwargs: Of `PromptTuner`.

    Raises:
        PromptError: If a number is out of range.
    """

    slug = "rlprompt"
    frozen = ("lm.", "policy_lm.")

    def __init__(
        self,
        lm: FrozenLM,
        template: Template,
        verbalizer: Verbalizer,
        prompt_length: Length = 5,
        policy: PolicySettings | None = None,
        reward: Reward | None = None,
        alpha: Annotated[Share, Symbol("\N{GREEK SMALL LETTER ALPHA}")] = 0.0,
        mix: Mix = "zscore",
        scrutability_scale: NotNegative = 1.0,
        loss: Literal["soft_q", "reinforce", "grpo"] = "soft_q",
        kl_weight: NotNegative = 0.0,
        entropy_weight: NotNegative = 0.0,
        prompts_per_step: Several = 16,
        target_rate: ShareOfSome = 1e-3,
        init: PromptInit | None = None,
        candidates: CountOrZero = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(lm, template, verbalizer, perplexity_weight=alpha, **kwargs)
        settings = policy or PolicySettings()
        self.alpha, self.mix, self.scrutability_scale = alpha, mix, scrutability_scale
        self.loss, self.kl_weight, self.entropy_weight = loss, kl_weight, entropy_weight
        self.prompts_per_step, self.target_rate = prompts_per_step, target_rate
        self.num_candidates = candidates
        self.policy_lm = other_writer(settings, lm)
        # Rows that pad either model's table are no tokens of the other.
        sizes = lm.vocab_size, self.writer.vocab_size
        forbidden = set(range(min(sizes), sizes[1]))
        if self.exclude_special:
            forbidden |= {i for i in (*lm.special_ids, *self.writer.special_ids) if i < sizes[1]}
        self.policy = Policy(settings, self.writer, prompt_length, sorted(forbidden), self.seed)
        self.reward = reward or ClassificationGap()
        self.reward.attach(lm, template, verbalizer)
        self.ledger = Ledger(doubt=DOUBT)
        self.scorer = PromptScorer(lm, self.reward, self.ledger, self._sum)
        self.keep_ids("token_ids", self._start(init, prompt_length), persistent=True)
        self._greedy_ids: Ids = ()
        self._greedy: dict[str, float] = {}
        self._measures: PromptMeasures | None = None
        self._rows: str | None = None

    @property
    def writer(self) -> FrozenLM:
        """The policy's language model."""
        return self.lm if self.policy_lm is None else self.policy_lm

    # ---- training

    def setup(self, stage: str) -> None:
        """Read what the reward needs before any work."""
        super().setup(stage)
        if stage != "predict" or not self.classifies:
            self.reward.load()
        if stage == "fit":
            self._check_trainer()

    def on_train_start(self) -> None:
        """Learn whether all prompts meet the same rows; where rewards are drawn, they do not."""
        self._rows = self._only_batch() if self.reward.deterministic else None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """K prompts on one batch; returns the policy's loss."""
        self.policy.update_target(self.target_rate)
        seed = seed_at(self.seed, self.global_step)
        generator = torch.Generator(self.device).manual_seed(seed)
        sampled = self.policy.sample(self.writer, self.prompts_per_step, generator)
        scored = self.scorer.train(sampled.token_ids, batch, seed, self._rows)
        written = sampled.token_ids.numel()  # by every process alike, so it counts once
        pairs = scored.task.num_tokens
        if pairs is None:
            pairs = self.reward.num_tokens(sampled.token_ids, batch)
        own = 0 if batch["borrowed"] else pairs
        self._count(own + (written if self.global_rank == 0 else 0))
        self.loss_parts = {
            "the reward": scored.task.raw,
            "the log-perplexity": scored.log_perplexity,
        }
        reward = mix_rewards(*scored, self.alpha, self.mix, self.scrutability_scale)
        low, high = self.reward.low, self.reward.high
        logits = self.policy(self.writer, sampled.hidden)  # (K, P, V)
        loss = self._loss(logits, sampled, low + (high - low) * reward)
        nats = soft_q.entropy(logits)
        if self.entropy_weight:
            loss = loss - self.entropy_weight * nats
        self._log_step(loss, nats, scored)
        return loss

    def _only_batch(self) -> str | None:
        """Names the training rows where each batch holds all of them, else None."""
        loader: Any = self.trainer.train_dataloader
        # `limit_train_batches 1` takes one batch an epoch too, of other rows each time.
        batches = getattr(loader, "batch_sampler", None) or loader
        if max(self.trainer.num_training_batches, len(batches)) > 1:
            return None
        rows = getattr(loader.dataset, "examples", None), getattr(loader.dataset, "labels", None)
        return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]

    def _loss(self, logits: Tensor, sampled: Sampled, rewards: Tensor) -> Tensor:
        prior = self.policy.prior(self.writer, sampled) if self.kl_weight else None
        weight = self.kl_weight * (self.reward.high - self.reward.low)
        if self.loss == "soft_q":
            with torch.no_grad():
                target = self.policy(self.writer, sampled.hidden, target=True)
            return soft_q.soft_q_loss(logits, target, sampled.token_ids, rewards, prior, weight)
        log_p, _ = soft_q.action_values(logits, sampled.token_ids)
        if prior is not None:
            own, _ = soft_q.action_values(prior, sampled.token_ids)
            rewards = rewards - weight * (log_p.detach() - own).sum(1)
        above = standardise(rewards) if self.loss == "grpo" else soft_q.leave_one_out(rewards)
        return soft_q.policy_gradient(above, log_p)

    def _log_step(self, loss: Tensor, entropy: Tensor, scored: Scored) -> None:
        task, nats = scored
        self.log("train/loss", loss)
        self.log("train/reward", task.raw.mean(), prog_bar=True)
        values = {name: value.mean() for name, value in task.components.items()}
        values |= {"reward_best": task.raw.max(), "entropy": entropy.detach()}
        values |= {"log_perplexity": nats.mean(), "perplexity": nats.mean().exp()}
        values["distinct_prompts"] = torch.tensor(float(len(self.ledger)))
        self.log_dict({f"train/{name}": value for name, value in values.items()})

    # ---- validation: which prompt is the best?

    def _contenders(self) -> list[Ids]:
        """The best prompts since the last validation, and the greedy one."""
        self._greedy_ids = tuple(self.policy.greedy(self.writer).tolist())
        best = self.ledger.best(self.num_candidates, self.alpha, window=True)
        return [*best, self._greedy_ids]

    def _choose(self) -> list[Ids]:
        ranked = super()._choose()
        found = self.ledger[self._greedy_ids]
        self._greedy = {**found.validated, "objective": found.objective(self.alpha)}
        return ranked

    def on_validation_epoch_end(self) -> None:
        """Log the incumbent's metrics, and the greedy prompt's beside them."""
        super().on_validation_epoch_end()
        if self._greedy and self.trainer.state.fn == TrainerFn.FITTING:
            greedy = {f"val/greedy_{name}": value for name, value in self._greedy.items()}
            self.log_dict({**greedy, "step": float(self.global_step)}, sync_dist=True)

    def listed_prompts(self) -> list[dict[str, Any]]:
        """The prompts that were validated and the best others, the best first."""
        return self.ledger.table(LISTED, self.alpha, self.lm.decode)

    # ---- tasks that are not answered with a word measure what their reward measures

    @property
    def classifies(self) -> bool:
        """Whether the task is answered with a verbalizer's word."""
        return self.reward.classifies

    def columns(self, stage: Stage) -> Mapping[str, str]:
        """Those of the reward."""
        return self.reward.columns(stage)

    def legend(self, stage: Stage) -> str:
        """That of the reward."""
        return self.reward.legend(stage)

    def on_validation_epoch_start(self) -> None:
        """Begin to measure."""
        self._measures = None if self.classifies else self.reward.measures("val", self._sum)

    def on_test_epoch_start(self) -> None:
        """Begin to measure."""
        self._measures = None if self.classifies else self.reward.measures("test", self._sum)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Class probabilities, or what the reward's task has instead."""
        if self.classifies:
            return super().predict_step(batch, batch_idx)
        return {"rows": batch["rows"], "records": self.reward.predictions(self.token_ids, batch)}

    def _evaluate(self, batch: Batch, metrics: MetricCollection) -> dict[str, Tensor]:
        if self._measures is None:
            return super()._evaluate(batch, metrics)
        self._measures.update(self.token_ids[None], batch)
        return {}

    def _evaluated(self, metrics: MetricCollection) -> dict[str, Tensor]:
        if self._measures is None:
            return super()._evaluated(metrics)
        self.comparisons = self._measures.comparisons()
        return {name: value[0] for name, value in self._measures.compute().items()}

    # ---- details

    def _start(self, init: PromptInit | None, prompt_length: int) -> Tensor:
        """[P] The first incumbent: a given prompt, which the policy learns to write, or its own."""
        if init is None:
            return self.policy.greedy(self.writer)
        rows = init(self.lm, self.verbalizer, prompt_length, self.seed)
        excluded = self.special_ids if self.exclude_special else None
        ids = nearest_tokens(rows, self.lm.index, self.projection, excluded).ids
        self.policy.imitate(self.writer, ids)
        return ids

    def _check_trainer(self) -> None:
        """Refuse what would train nothing without a word."""
        if str(self.trainer.precision) in HALF_WEIGHTS:
            raise PromptError(
                f"--trainer.precision {self.trainer.precision} keeps the policy in half precision, "
                "which swallows its small steps; use bf16-mixed or 32-true."
            )
        if (batches := self.trainer.accumulate_grad_batches) > 1:
            raise PromptError(
                f"--trainer.accumulate_grad_batches is {batches}, but every batch of a step would "
                "sample the same prompts; raise --model.prompts_per_step instead."
            )
