"""PEFT, both ways, by the real package: its adapters measured here, ours read there."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import collate
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.sources import converted_folder, find_model
from lightning_prompts.report.export import export
from lightning_prompts.runs.prompt import load_prompt
from lightning_prompts.tuners.vectors import read_vectors
from tests.report.test_export import made
from tests.tiny import reviews, save_reviews

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft==0.21.2"),
]
WORDS = {"negative": " terrible", "positive": " great"}
ROWS = {"train": 4, "validation": 16, "test": 2}
LARGEST = 1e-3  # of logits of some 20, by passes of other shapes in float32


@pytest.fixture(params=["gpt2", "smollm2", "gemma3-270m"])
def name(request: pytest.FixtureRequest, lm_folder: Path) -> str:
    """A model of GPT-2's shape, and the two real ones, where they are installed."""
    if request.param == "gpt2":
        return str(lm_folder)
    request.getfixturevalue({"smollm2": "smollm2_installed"}.get(request.param, "gemma_installed"))
    return str(request.param)


def plain(name: str) -> tuple[Any, Any]:
    """Model and tokenizer by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = find_model(name)
    place = converted_folder(source) if source.kind == "gguf" else Path(name)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(place)


def trained(model: Any, tokenizer: Any, config: Any, steps: int = 1) -> Any:
    """An adapter after a plain loop."""
    from peft import get_peft_model

    words = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in WORDS.values()]
    labels = list(WORDS)
    torch.manual_seed(0)
    adapted = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        loss = torch.zeros(())
        for row in reviews(4):
            ids = tokenizer(row["text"] + " It was", return_tensors="pt").input_ids
            answer = torch.tensor([words[labels.index(row["label"])]])
            loss = loss + F.cross_entropy(adapted(input_ids=ids).logits[:, -1], answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return adapted.eval()


@torch.no_grad()
def answers(adapted: Any, tokenizer: Any, rows: list[dict[str, str]]) -> list[list[float]]:
    """Shares of the labels by PEFT's own pass, a row at a time."""
    words = [tokenizer(word, add_special_tokens=False).input_ids[0] for word in WORDS.values()]
    found = []
    for row in rows:
        ids = tokenizer(row["text"] + " It was", return_tensors="pt").input_ids
        found.append(adapted(input_ids=ids).logits[0, -1, words].softmax(0).tolist())
    return found


def test_its_adapter_is_measured_with_its_own_accuracy(name: str, tmp_path: Path, monkeypatch):
    from peft import PromptTuningConfig, TaskType

    monkeypatch.chdir(tmp_path)
    save_reviews(tmp_path / "reviews", ROWS)
    model, tokenizer = plain(name)
    length: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": 6}
    config = PromptTuningConfig(**length, prompt_tuning_init="SAMPLE_VOCAB")
    adapted = trained(model, tokenizer, config)
    adapted.save_pretrained("adapter")
    lines = Path("reviews/validation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    theirs = answers(adapted, tokenizer, rows)
    own = [list(WORDS)[shares.index(max(shares))] for shares in theirs]
    accuracy = sum(a == row["label"] for a, row in zip(own, rows, strict=True)) / len(rows)
    del adapted, model

    args = ["measure", "--prompt", "adapter", "--lm.name", name, "--data.path", "reviews"]
    args += ["--config", "configs/task/demo.yaml", "--data.template", "{prompt}{text} It was"]
    main([*args, "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"])
    run = Path("logs/imported-demo/version_0")
    prompt = load_prompt(run)
    ours = [[*shares.values()] for shares in prompt.probabilities([row["text"] for row in rows])]
    far = float((torch.tensor(ours) - torch.tensor(theirs)).abs().max())
    sys.stdout.write(f"{prompt.lm.label}: accuracy {accuracy}, largest difference {far:.2g}\n")
    assert prompt.metrics["val/accuracy"] == pytest.approx(accuracy)
    assert far < LARGEST
    assert (run / "report" / "report.html").is_file()
    # And back: the measured run is exported as an adapter again.
    if not prompt.lm.prefix_ids:
        main(["export", str(run), "--format", "peft", "--output", "again"])
        assert torch.equal(read_vectors("again").rows, read_vectors("adapter").rows)


@torch.no_grad()
def test_our_adapter_gives_it_our_logits(name: str, tmp_path: Path):
    from peft import PeftModel

    lm = FrozenLM(name)
    prompt = made(lm, text=" In one word, the film was", vectors=True)
    export(prompt, "peft", tmp_path / "adapter")
    texts = [row["text"] for row in reviews(6)]
    examples = [prompt.template.encode({"text": text}) for text in texts]
    batch = collate(examples, [-1] * len(texts), list(range(len(texts))))
    ours = lm.logits(lm.answer_hidden(prompt.embeddings, batch))

    model, tokenizer = plain(name)
    adapted = PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    ids = [tokenizer(f"{text} It was", add_special_tokens=False).input_ids for text in texts]
    longest, num_prompt = max(map(len, ids)), adapted.active_peft_config.num_virtual_tokens
    assert num_prompt == len(lm.prefix_ids) + len(prompt.embeddings)
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    logits = adapted(input_ids=padded, attention_mask=mask).logits
    theirs = logits[torch.arange(len(ids)), num_prompt + mask.sum(1) - 1]
    far = float((theirs - ours).abs().max())
    sys.stdout.write(f"{lm.label}: {ours.numel():,} logits, largest difference {far:.2g}\n")
    assert far < LARGEST


def test_what_other_methods_save(lm_folder: Path, tmp_path: Path):
    from peft import CPTConfig, PrefixTuningConfig, PromptEncoderConfig, TaskType

    length: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM, "num_virtual_tokens": 3}
    cpt = CPTConfig(
        task_type=TaskType.CAUSAL_LM,
        cpt_token_ids=[1, 2, 3],
        cpt_mask=[1, 1, 1],
        cpt_tokens_type_mask=[1, 2, 3],
    )
    for config in (PromptEncoderConfig(**length, encoder_hidden_size=8), cpt):
        model, tokenizer = plain(str(lm_folder))
        steps = 0 if config is cpt else 1  # whose loop wants labels with masks of their own
        adapted = trained(model, tokenizer, config, steps)
        adapted.save_pretrained(tmp_path / "adapter")
        found = read_vectors(str(tmp_path / "adapter")).rows
        assert torch.allclose(found, adapted.get_prompt(1)[0], atol=1e-6), config.peft_type
    model, tokenizer = plain(str(lm_folder))
    trained(model, tokenizer, PrefixTuningConfig(**length)).save_pretrained(tmp_path / "prefix")
    with pytest.raises(PromptError, match="PREFIX_TUNING, which learns keys and values"):
        read_vectors(str(tmp_path / "prefix"))
