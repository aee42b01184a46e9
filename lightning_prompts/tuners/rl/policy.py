"""RLPrompt's policy: a frozen language model whose hidden states a small MLP turns into Q-values.

Deng et al. 2022, arXiv:2205.12548. Only the MLP learns. Dimensions: K prompts, P prompt tokens,
H hidden size, V vocabulary.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.numbers import wide
from lightning_prompts.files.option_types import Count, Finite, ModelName, require_fields
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.kept_ids import KeepsIds
from lightning_prompts.lm.passes.growing_rows import GrowingRows

# Start of the published MLP: Xavier with this gain, and this bias in both layers.
PUBLISHED_GAIN, PUBLISHED_BIAS = 1e-4, -1e-4


@dataclass
class PolicySettings:
    """What the policy is made of.

    Args:
        lm: Another language model with the same tokens, by name as `--lm.name`; by default the
            task's own.
        start: `zero` is the published head, Q = head(MLP(h)): nearly equal Q-values, so that it
            begins with arbitrary tokens. `lm` is ours, Q = head(h + MLP(h)) with an MLP that
            begins at 0: it begins as the frozen language model itself, after the source text.
        source_text: What the prompt continues; BOS stands before it.
        mlp_size: Width of the MLP's hidden layer.
        top_k: Sample from this many best tokens; losses see all of them.
        logit_bias: Added to every Q-value.
        fluent_top_k: Allow only the language model's own so many best tokens.
    """

    lm: ModelName | None = None
    start: Literal["zero", "lm"] = "lm"
    source_text: str = ""
    mlp_size: Count = 2048
    top_k: Count = 256
    logit_bias: Finite = 0.0
    fluent_top_k: Count | None = None

    def __post_init__(self) -> None:
        require_fields(self)


class Sampled(NamedTuple):
    """Prompts that a policy wrote, with the states that it wrote them from.

    Attributes:
        token_ids: [K, P]
        hidden: [K, P, H] Final hidden state before each token, float32; constants.
    """

    token_ids: Tensor
    hidden: Tensor


class Policy(KeepsIds):
    """Writes hard prompts token by token.

    The language model is not its own: it is handed in, so that one copy serves all.

    Args:
        settings: See `PolicySettings`.
        lm: Whose hidden states it reads.
        prompt_length: P.
        forbidden: Token ids that are never written, e.g. special tokens.
        seed: Of the MLP's first weights.

    Raises:
        PromptError: If the source text leaves no room for the prompt.
    """

    def __init__(
        self,
        settings: PolicySettings,
        lm: FrozenLM,
        prompt_length: int,
        forbidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.settings, self.prompt_length = settings, prompt_length
        self.mlp = _first_mlp(lm.state_size, settings.mlp_size, settings.start, seed)
        self.target = copy.deepcopy(self.mlp).requires_grad_(False)
        source, text = [lm.bos_id], settings.source_text
        source += lm.encode(text, "--model.policy.source_text") if text else []
        if len(source) + prompt_length > lm.max_positions:
            raise PromptError(
                f"--model.policy.source_text and the prompt have {len(source) + prompt_length} "
                f"tokens but {lm.label} has {lm.max_positions} positions; shorten the text."
            )
        self.source_ids: Tensor
        self.forbidden_ids: Tensor
        self.keep_ids("source_ids", torch.tensor(source))
        self.keep_ids("forbidden_ids", torch.tensor(list(forbidden)).long())

    def forward(self, lm: FrozenLM, hidden: Tensor, target: bool = False) -> Tensor:
        """[..., H] hidden states to [..., V] float32 Q-values, those of forbidden tokens -inf.

        Without autocast: beside the residual, bfloat16 would swallow a small MLP's output, as it
        does where the weights of the head are themselves of that type (`--lm.dtype bfloat16`).
        """
        mlp = self.target if target else self.mlp
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(next(mlp.parameters()).dtype)
            changed = mlp(hidden)
            if self.settings.start == "lm":
                changed = hidden + changed
            logits = lm.logits(changed) + self.settings.logit_bias
            return logits.index_fill(-1, self.forbidden_ids, -torch.inf)

    @torch.no_grad()
    def prior(self, lm: FrozenLM, sampled: Sampled) -> Tensor:
        """[K, P, V] Logits of the frozen language model itself, those of forbidden tokens -inf."""
        return lm.logits(sampled.hidden).index_fill(-1, self.forbidden_ids, -torch.inf)

    @torch.no_grad()
    def sample(self, lm: FrozenLM, count: int, generator: torch.Generator) -> Sampled:
        """K prompts from the `top_k` best tokens at each step.

        Args:
            lm: The language model of the policy.
            count: K.
            generator: On the policy's device.
        """

        def draw(logits: Tensor, step: int) -> Tensor:
            values, ids = logits.topk(min(self.settings.top_k, logits.shape[-1]), dim=-1)
            # Exponential races: log p + Gumbel noise, from one draw a token.
            noise = torch.empty_like(values).exponential_(generator=generator)
            chosen = (values - noise.log()).argmax(-1, keepdim=True)
            return ids.gather(-1, chosen)[:, 0]

        return self._write(lm, count, draw)

    @torch.no_grad()
    def greedy(self, lm: FrozenLM) -> Tensor:
        """[P] The prompt of the highest Q-value at each step."""
        return self._write(lm, 1, lambda logits, step: logits.argmax(-1)).token_ids[0]

    @torch.no_grad()
    def read(self, lm: FrozenLM, token_ids: Tensor) -> Sampled:
        """[K, P] given prompts, with the states before each of their tokens."""
        return self._write(lm, len(token_ids), lambda logits, step: token_ids[:, step])

    @torch.no_grad()
    def update_target(self, rate: float) -> None:
        """Polyak: target <- (1 - rate) * target + rate * MLP."""
        for target, own in zip(self.target.parameters(), self.mlp.parameters(), strict=True):
            target.lerp_(own, rate)

    def imitate(self, lm: FrozenLM, token_ids: Tensor, probability: float = 0.1) -> None:
        """Learn to write a given prompt, so that what is sampled begins around it.

        Stops where each of its tokens has a mean probability (geometric) of `probability` after
        the ones before it.

        Args:
            lm: The language model of the policy.
            token_ids: [P]
            probability: In (0, 1); near 1 would leave nothing to explore.

        Raises:
            PromptError: If it does not learn to.
        """
        sampled = self.read(lm, token_ids[None])
        optimizer = torch.optim.Adam(self.mlp.parameters(), lr=1e-4)
        with torch.enable_grad():
            for _ in range(1000):
                logits = self(lm, sampled.hidden)[0]
                loss = F.cross_entropy(logits, token_ids)
                if loss <= -torch.tensor(probability).log():
                    break
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            else:
                raise PromptError(
                    "The policy cannot be brought to the prompt of --model.init: after 1,000 steps "
                    f"its tokens have a mean probability of {float((-loss).exp()):.1g}; use "
                    "--model.policy.start lm, or leave out --model.init."
                )
        self.mlp.zero_grad()
        self.target.load_state_dict(self.mlp.state_dict())

    def _write(self, lm: FrozenLM, count: int, choose: Callable[[Tensor, int], Tensor]) -> Sampled:
        """Write `count` prompts; `choose` takes [K, V] Q-values and the step, gives [K] ids."""
        # Without autocast: casting all weights would cost more than it saves on so few tokens.
        with torch.autocast(self.source_ids.device.type, enabled=False):
            rows = GrowingRows(lm, lm.embed(self.source_ids), count)
            hidden_states: list[Tensor] = []
            tokens: list[Tensor] = []
            for step in range(self.prompt_length):
                if step:
                    rows.add(lm.embed(tokens[-1]))
                hidden = wide(rows.hidden)
                logits = self._fluent(lm, self(lm, hidden), hidden)
                hidden_states.append(hidden)
                tokens.append(choose(logits, step))
        return Sampled(torch.stack(tokens, 1), torch.stack(hidden_states, 1))

    def _fluent(self, lm: FrozenLM, logits: Tensor, hidden: Tensor) -> Tensor:
        """Leave only what the language model itself would likely say."""
        if self.settings.fluent_top_k is None:
            return logits
        own = lm.logits(hidden).index_fill(-1, self.forbidden_ids, -torch.inf)
        likely = own.topk(min(self.settings.fluent_top_k, own.shape[-1]), dim=-1).indices
        return torch.full_like(logits, -torch.inf).scatter(-1, likely, logits.gather(-1, likely))


class PolicyLM(FrozenLM):
    """A language model of the policy's own."""

    option = "--model.policy.lm"


def other_writer(settings: PolicySettings, lm: FrozenLM) -> FrozenLM | None:
    """The policy's own language model, None where it writes with the task's.

    Raises:
        PromptError: If its tokens are not those of the task's model.
    """
    if settings.lm in (None, lm.name):
        return None
    other = PolicyLM(settings.lm)
    if other.tokenizer.get_vocab() != lm.tokenizer.get_vocab() and (
        other.vocabulary != lm.vocabulary
    ):
        raise PromptError(
            f"--model.policy.lm {settings.lm} has other tokens than {lm.label}, and the policy "
            "writes token ids; use a model with the same tokenizer, or leave it out."
        )
    return other


def _first_mlp(hidden_size: int, mlp_size: Count, start: str, seed: int) -> nn.Sequential:
    """The MLP with its first weights: the published ones, or ours, which give exactly 0."""
    first, last = nn.Linear(hidden_size, mlp_size), nn.Linear(mlp_size, hidden_size)
    published = start == "zero"
    generator = torch.Generator().manual_seed(seed)
    for layer in (first, last):
        gain, bias = (PUBLISHED_GAIN, PUBLISHED_BIAS) if published else (1.0, 0.0)
        nn.init.xavier_uniform_(layer.weight, gain, generator)
        nn.init.constant_(layer.bias, bias)
    if not published:
        nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.ReLU(), last)
