"""Which numbers an option may have, said once: of every number that a part would take amiss.

The command line checks what it has parsed, before anything is built; a class checks what it is made
with from Python. Numbers that only a library reads are here too, where the library takes them in
silence or fails far from the option.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_prompts.files.errors import PromptError


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; never NaN or infinite.

    Attributes:
        low: The least number.
        high: The greatest number.
        above: Whether `low` itself is left out.
        also: One more number, which has a meaning of its own.

    >>> str(Range(2)), str(Range(0, above=True)), str(Range(0, 1))
    ('at least 2', 'more than 0', 'a number from 0 to 1')
    >>> Range(0, 1).has(0.5), Range(0, 1).has(float("nan")), Range(0).has(float("inf"))
    (True, False, False)
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    also: float | None = None

    def has(self, value: float) -> bool:
        """Whether a number is in it."""
        if self.also is not None and value == self.also:
            return True
        inside = self.low < value if self.above else self.low <= value
        return inside and value <= self.high and abs(value) < math.inf

    def __str__(self) -> str:
        if self.high not in (MOST, math.inf):
            begins = "above" if self.above else "from"
            text = f"a number {begins} {self.low:.10g} to {self.high:.10g}"
        elif self.low > -math.inf:
            text = f"{'more than' if self.above else 'at least'} {self.low:.10g}"
        else:
            text = "a finite number"
        return text if self.also is None else f"{text}, or {self.also:.10g}"


MOST = 2**31 - 1  # of what is counted: more is a slip, and too much for some of the libraries
COUNT, COUNT_OR_NONE = Range(1, MOST), Range(0, MOST)
SHARE, SHARE_OF_SOME = Range(0, 1), Range(0, 1, above=True)
POSITIVE, NOT_NEGATIVE, FINITE = Range(0, above=True), Range(0), Range()
SEED = Range(0, 2**32 - 1)  # what numpy's generators take

# By the option's name without `init_args`. Steps and epochs of -1 are unlimited.
OPTIONS: dict[str, Range] = {
    "seed_everything": SEED,
    "lm.text_cache": NOT_NEGATIVE,
    # ---- tuners
    "model.seed": SEED,
    "model.prompt_length": COUNT,
    "model.perplexity_weight": SHARE,
    "model.init.top": COUNT,
    "model.init.top_k": COUNT,
    "model.init.temperature": POSITIVE,
    "model.optimizer.lr": NOT_NEGATIVE,
    "model.optimizer.weight_decay": NOT_NEGATIVE,
    "model.optimizer.momentum": NOT_NEGATIVE,
    "model.optimizer.eps": NOT_NEGATIVE,
    "model.optimizer.betas": SHARE,
    "model.lr_scheduler.warmup_steps": COUNT_OR_NONE,
    "model.lr_scheduler.total_steps": COUNT,
    "model.lr_scheduler.final_fraction": SHARE,
    "model.langevin_beta": POSITIVE,
    "model.alpha": SHARE,
    "model.scrutability_scale": NOT_NEGATIVE,
    "model.kl_weight": NOT_NEGATIVE,
    "model.entropy_weight": NOT_NEGATIVE,
    "model.prompts_per_step": Range(2, MOST),  # rewards are standardised over them
    "model.target_rate": SHARE_OF_SOME,
    "model.candidates": COUNT_OR_NONE,
    "model.policy.mlp_size": COUNT,
    "model.policy.top_k": COUNT,
    "model.policy.fluent_top_k": COUNT,
    "model.policy.logit_bias": FINITE,
    "model.reward.right": NOT_NEGATIVE,
    "model.reward.wrong": NOT_NEGATIVE,
    "model.reward.samples": COUNT,
    "model.reward.bootstraps": COUNT,
    "model.reward.top_k": COUNT,
    "model.reward.val_samples": COUNT,
    "model.reward.test_samples": COUNT,
    "model.reward.seed": SEED,
    "model.min_length": COUNT,
    "model.max_length": COUNT,
    "model.beam": COUNT,
    "model.race": COUNT,
    "model.keep": SHARE_OF_SOME,
    "model.contenders": COUNT_OR_NONE,
    "model.edits.proposals": SHARE,
    "model.edits.gradient_top_k": COUNT,
    "model.edits.model_top_k": COUNT,
    "model.edits.temperature": POSITIVE,
    "model.edits.substitute": NOT_NEGATIVE,
    "model.edits.substitute_two": NOT_NEGATIVE,
    "model.edits.insert": NOT_NEGATIVE,
    "model.edits.delete": NOT_NEGATIVE,
    "model.edits.swap": NOT_NEGATIVE,
    # ---- tasks
    "data.seed": SEED,
    "data.shots": COUNT,
    "data.max_tokens": COUNT,
    "data.batch_size": COUNT,
    "data.val_batch_size": COUNT,
    "data.num_workers": Range(0, 1024),  # processes, each with its own Python
    "data.train_rows": COUNT,
    "data.validation_rows": COUNT,
    "data.test_rows": COUNT,
    # ---- callbacks
    "faithfulness.every_n_validations": COUNT,
    "faithfulness.max_batches": COUNT,
    "scrutability.every_n_validations": COUNT,
    "prompt_text.neighbours": COUNT,
    # ---- the trainer
    "trainer.max_steps": Range(0, also=-1),
    "trainer.min_steps": COUNT_OR_NONE,
    "trainer.max_epochs": Range(0, also=-1),
    "trainer.min_epochs": COUNT_OR_NONE,
    "trainer.limit_train_batches": NOT_NEGATIVE,
    "trainer.limit_val_batches": NOT_NEGATIVE,
    "trainer.limit_test_batches": NOT_NEGATIVE,
    "trainer.limit_predict_batches": NOT_NEGATIVE,
    "trainer.val_check_interval": POSITIVE,
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.num_sanity_val_steps": Range(0, also=-1),
    "trainer.log_every_n_steps": COUNT_OR_NONE,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": NOT_NEGATIVE,
    "trainer.num_nodes": COUNT,
    # ---- style classifiers
    "reward.rows": COUNT,
    "reward.lr": POSITIVE,
    "reward.layer": POSITIVE,
    "reward.seed": SEED,
    "judge.rows": COUNT,
    "judge.lr": POSITIVE,
    "judge.layer": POSITIVE,
    "judge.seed": SEED,
}


def require(option: str, value: Any, allowed: Range | None = None) -> None:
    """Refuse a number that an option may not have; what is no number is another check's.

    Args:
        option: Its name, with dots.
        value: A number, or a sequence of some.
        allowed: By default the range in `OPTIONS`.

    Raises:
        PromptError: If it is out of range.
    """
    allowed = OPTIONS[option] if allowed is None else allowed
    for number in value if isinstance(value, list | tuple) else (value,):
        if _is_number(number) and not allowed.has(number):
            null = ", or null for all" if option in _ALL_WITHOUT else ""
            fix = f"at most {MOST}" if allowed.high == MOST < number else str(allowed)
            raise PromptError(f"--{option} is {_shown(value)}; give {fix}{null}.")


def require_numbers(config: Mapping[str, Any]) -> None:
    """Refuse the first number of a configuration that is out of range.

    Args:
        config: Nested, as parsed.

    Raises:
        PromptError: If there is one.
    """
    for option, value in _flat(config, ""):
        if option not in OPTIONS:
            continue
        # The parser takes a list for a tensor, which some of torch's numbers may be.
        if option not in _SEVERAL and not isinstance(value, int | float | str | None):
            raise PromptError(f"--{option} is {_shown(value)}; give one number.")
        require(option, value)


# What has several numbers.
_SEVERAL = (
    *("model.optimizer.betas", "model.optimizer.eps", "model.optimizer.etas"),
    *("model.optimizer.step_sizes", "model.optimizer.ns_coefficients"),
    *("model.langevin_beta", "model.race"),
)
# Without a number of rows, all are taken.
_ALL_WITHOUT = ("data.shots", "data.train_rows", "data.validation_rows", "data.test_rows")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, Sequence) else str(value)


def _flat(config: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Options with their values, named without `init_args`."""
    for key, value in config.items():
        name = prefix if key in ("init_args", "dict_kwargs") else f"{prefix}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value
