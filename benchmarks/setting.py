"""The ground that all lines share: device, random model, texts, and what is installed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tasks import TextClassification

END = "<|endoftext|>"
WORDS = {"negative": " w1", "positive": " w2"}
FIRST_WORD = 10  # of texts and prompts, apart from the verbalizer's
PROMPT_FIRST, PROMPT_LAST = "{prompt}{text}", "{text}{prompt}"


@dataclass(frozen=True)
class Setting:
    """Where and how often to measure.

    Attributes:
        device: `cpu` or `cuda`.
        folder: Of the random model; data is written beside it.
        repetitions: Of each way, warming up not counted.
        missing: Why nothing can be measured here, None where it can.
    """

    device: str
    folder: Path
    repetitions: int
    missing: str | None = None

    @property
    def dtype(self) -> str:
        """Weights on a GPU are bfloat16, on a CPU float32."""
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def compile(self) -> dict[str, bool]:
        """The language model's option to compile, on a GPU."""
        return {"compile": True} if self.device == "cuda" else {}

    def lm(self, **options: Any) -> FrozenLM:
        """The random model, frozen."""
        given = {"dtype": self.dtype, **options}
        return FrozenLM(str(self.folder), add_bos=False, **given).to(self.device)

    def batch(self, lm: FrozenLM, template: Template, num_texts: int, num_tokens: int) -> Batch:
        """`num_texts` random texts of `num_tokens` tokens each, in turn of either class."""
        texts = [lm.decode(row) for row in words(lm, num_texts, num_tokens).tolist()]
        labels = [i % len(WORDS) for i in range(num_texts)]
        batch = collate([template.encode({"text": t}) for t in texts], labels, range(num_texts))
        moved = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return cast(Batch, moved)

    def task(self, lm: FrozenLM, num_texts: int, num_tokens: int, **options: Any) -> Any:
        """The same texts as a data module's training and validation rows, prompt first."""
        texts = [lm.decode(row) for row in words(lm, num_texts, num_tokens).tolist()]
        labels = list(WORDS)
        rows = [{"text": t, "label": labels[i % len(labels)]} for i, t in enumerate(texts)]
        folder = self.folder / f"rows-{num_texts}-{num_tokens}"
        folder.mkdir(exist_ok=True)
        for split in ("train", "validation"):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        return TextClassification(lm, PROMPT_FIRST, dict(WORDS), path=str(folder), **options)

    @property
    def trainer_options(self) -> dict[str, Any]:
        """Of a Lightning trainer that neither logs nor saves nor shows anything."""
        return {
            "accelerator": "gpu" if self.device == "cuda" else "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
        }


def save_random_model(folder: Path, small: bool) -> None:
    """GPT-2 with random weights, 124M parameters unless `small`, and a tokenizer of two halves.

    The lower half of the vocabulary are words that are one token and come back from their text. The
    upper half are their twins, spelt with an x that the tokenizer drops: their text encodes to the
    word without it, as the text of a learned prompt often encodes to other tokens.
    """
    size = {"vocab_size": 500, "n_embd": 32, "n_layer": 2, "n_head": 2} if small else {}
    config = GPT2Config(**size, bos_token_id=0, eos_token_id=0)
    own = range(1, first_twin(config.vocab_size))
    vocabulary = {END: 0} | {f" w{i}": i for i in own}
    twins = range(first_twin(config.vocab_size), config.vocab_size)
    vocabulary |= {f" w{i}x": twin for i, twin in enumerate(twins, start=1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    tokenizer.normalizer = normalizers.Replace(Regex(r"(?<=\d)x"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" w\d+"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"bos_token": END, "eos_token": END, "unk_token": END, "pad_token": END}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)


def first_twin(vocab_size: int) -> int:
    """The first id whose text encodes to another id."""
    return vocab_size // 2 + 1


def words(lm: FrozenLM, *shape: int, seed: int = 0, twins: bool = False) -> Tensor:
    """Random token ids of words, or of their twins."""
    generator = torch.Generator().manual_seed(seed)
    middle = first_twin(lm.vocab_size)
    low, high = (middle, lm.vocab_size) if twins else (FIRST_WORD, middle)
    return torch.randint(low, high, shape, generator=generator)


def nearby(rows: Tensor, seed: int = 0) -> Tensor:
    """Noise that moves rows of the table a little, but not to other nearest tokens."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows.shape, generator=generator).to(rows.device)
    return 0.1 * rows.float().std() * noise


def verbalizer(lm: FrozenLM) -> Verbalizer:
    """Of the two classes."""
    return Verbalizer(WORDS, lm)
