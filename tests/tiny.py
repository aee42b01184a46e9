"""A tiny language model and a few reviews, for tests and for what is run for real."""

import json
import string
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

# Whole-word tokens, so that a verbalizer's word can be a single token; every other token is one
# character, so that a test can read positions off the text.
WHOLE_WORDS = (" terrible", " great", " bad", " good")
END = "<|endoftext|>"
TURNS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou {help}.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

GOOD = (
    "A warm and funny film.",
    "I loved it from the first minute to the last.",
    "Great cast, good songs.",
    "Fine work!",
    "The ending made the whole street cheer, and I stayed for the credits.",
    "Quiet, clever and kind.",
    "One of the best evenings this year: fresh, quick and never loud.",
)
BAD = (
    "Dull and far too long.",
    "I left before the end, and so did half of the row.",
    "No plot, no jokes.",
    "A mess.",
    "The actors try hard, but nobody could save lines that are this flat.",
    "Cold, slow and loud.",
    "Two hours that I will not get back, and the sound was broken as well.",
)


def save_model(
    folder: Path,
    seed: int = 0,
    positions: int = 256,
    characters: str = "",
    words: tuple[str, ...] = WHOLE_WORDS,
) -> None:
    """A GPT2LMHeadModel with random weights (2 layers, H=16, V=101) and its tokenizer.

    Args:
        folder: Where to.
        seed: Of the weights.
        positions: Longest input, in tokens.
        characters: Tokens beside printable ASCII.
        words: Tokens of several characters.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    known = string.ascii_letters + string.digits + string.punctuation + " \n"
    tokens = dict.fromkeys([END, *words, *known, *characters])
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END))
    pieces = Regex("|".join([*words, r"[\s\S]"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, unk_token=END
    ).save_pretrained(folder)

    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=positions,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=vocabulary[END],
        eos_token_id=vocabulary[END],
        initializer_range=0.2,  # the usual 0.02 gives nearly equal logits at this width
        resid_pdrop=0.1,  # so that a model left in training mode is noticed
        embd_pdrop=0.1,
        attn_pdrop=0.1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        GPT2LMHeadModel(config).save_pretrained(folder)


def save_chat_model(folder: Path, template: str = CHATML) -> None:
    """The model of `save_model` with tokens that begin and end turns, and a chat template."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": [*TURNS]})
    tokenizer.chat_template = template
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for each in (tokenizer, model):
        each.save_pretrained(folder)


def reviews(count: int) -> Iterator[dict[str, str]]:
    """Distinct reviews of one or two sentences, alternately positive and negative."""
    for i in range(count):
        texts, label = ((GOOD, "positive"), (BAD, "negative"))[i % 2]
        turn, place = divmod(i // 2, len(texts))
        second = " " + texts[(place + turn) % len(texts)] if turn else ""
        yield {"text": texts[place] + second, "label": label}


def save_reviews(folder: Path, counts: Mapping[str, int]) -> None:
    """A JSONL file a split, with columns text and label; no review is in two of them.

    Args:
        folder: Where to.
        counts: Split to number of rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = reviews(sum(counts.values()))
    for split, count in counts.items():
        lines = [json.dumps(next(rows)) + "\n" for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
