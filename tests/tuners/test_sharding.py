"""A language model that is divided over two processes gives the prompts of a whole one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh

from lightning_prompts.cli.main import main
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.tuners.record import LMRecord
from lightning_prompts.tuners.sharding import blocks_of, shard
from soak.processes import CASES, ROWS, SHARDED, compare
from tests.tiny import save_reviews


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SoftPrompt", "PEZ"])
def test_two_parts_do_what_the_whole_does(name: str, lm_folder: Path, tmp_path: Path):
    save_reviews(tmp_path / "data", ROWS)
    found = compare(tmp_path, lm_folder, tmp_path / "data", CASES[name], "32-true", SHARDED)
    assert found.alike  # both hold the same prompt after every step: its gradient is averaged
    assert found.ids
    assert found.accuracy
    assert max(found.parameters, found.losses, found.metrics) < 1e-5, found

    # After every step each process has given back what it gathered, and holds half of each block.
    blocks = sum(p.numel() for p in FrozenLM(str(lm_folder)).model.transformer.h.parameters())
    for seen in (tmp_path / "seen-2").glob("*.json"):
        parts = json.loads(seen.read_text())["sharded"]
        assert all(name.startswith("lm.model.transformer.h.") for name in parts)
        assert sum(whole for _, whole in parts.values()) == blocks
        assert all(2 * own == whole for own, whole in parts.values())

    kept = [
        torch.load(tmp_path / f"logs/with-{n}/version_0/checkpoints/last.ckpt", weights_only=True)
        for n in (1, 2)
    ]
    assert list(kept[1]["state_dict"]) == list(kept[0]["state_dict"]) == ["prompt"]
    states = [content["optimizer_states"][0]["state"][0] for content in kept]
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)


def fit_sharded(lm_folder: Path, review_folder: Path, tuner: str, *options: str) -> None:
    main(
        [
            *("fit", "--config", f"configs/tuner/{tuner}.yaml"),
            *("--config", "configs/task/demo.yaml", *SHARDED),
            *("--lm.name", str(lm_folder), "--data.path", str(review_folder)),
            *("--trainer.accelerator", "cpu", "--trainer.devices", "1"),
            *("--trainer.max_steps", "1", "--trainer.precision", "32-true", *options),
        ],
        show=False,
    )


@pytest.mark.parametrize(
    ("tuner", "options", "said"),
    [
        ("rlprompt", (), "RLPrompt does not go with a language model that is divided"),
        ("guided_search", (), "GuidedSearch does not go with a language model that is divided"),
        ("soft", ("--lm.compile", "true"), "--lm.compile does not go with a language model"),
        ("soft", ("--trainer.precision", "64-true"), "does not support"),
        (
            "soft",
            ("--trainer.strategy", '{"class_path": "ModelParallelStrategy"}'),
            "never average its gradient",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    tuner: str, options, said: str, lm_folder, review_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        fit_sharded(lm_folder, review_folder, tuner, *options)
    assert refused.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A process group of this process; one that another test's trainer made will do."""
    if own := not distributed.is_initialized():
        distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    if own:
        distributed.destroy_process_group()


def test_a_divided_model_is_still_known_by_its_whole_weights(lm_folder: Path, group_of_one):
    lm = FrozenLM(str(lm_folder))
    shard(lm, init_device_mesh("cpu", (1,)))
    assert LMRecord.of(lm) == LMRecord.of(FrozenLM(str(lm_folder)))


def test_the_blocks_are_the_largest_list():
    model = nn.ModuleDict(
        {
            "heads": nn.ModuleList([nn.Linear(2, 2)]),
            "layers": nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]),
        }
    )
    assert blocks_of(model) == list(model["layers"])
    with pytest.raises(PromptError, match="Linear has no list of blocks"):
        blocks_of(nn.Linear(2, 2))
