"""Mistakes of users, in-process: one sentence, exit status 2, and nothing damaged."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from lightning_prompts.cli.main import main
from soak.case import MISTAKE, Case, is_sentence
from soak.inputs import cases
from soak.world import World, damaged, make_world

# One or two of each kind; `python -m soak inputs` runs them all.
CHOSEN = {
    "soft: --model.prompt_length -1",
    "soft: --model.prompt_length 400",
    "soft: --model.perplexity_weight .nan",
    "soft: --model.perplexity_weight null",
    "soft: --model.optimizer.lr -1",
    "soft: --model.optimizer.lr fast",
    "soft: --model.lr_scheduler.final_fraction 2",
    "soft: --model.init.top -5",
    "soft: --data.split nan,nan,nan",
    "soft: --data.num_workers -1",
    "soft: --trainer.val_check_interval 0",
    "soft: --trainer.accumulate_grad_batches -1",
    "soft: --trainer.gradient_clip_val -1",
    "soft: --seed_everything -1",
    "rlprompt: --model.reward.right -1",
    "guided_search: --model.candidates 0",
    "misspelt key",
    "a key twice",
    "code in YAML",
    "init_args is a list",
    "a tuner that is no tuner",
    "unknown optimizer",
    "no projection",
    "an experiment outside the log folder",
    "revision of a local model",
    "subset of local data",
    "another encoding",
    "a list of labels",
    "a pattern that takes in the validation",
    "broken JSON",
    "JSON of great depth",
    "a list for a text",
    "a lone surrogate",
    "an empty path",
    "a gzip that is none",
    "a special token",
    "an attribute of a column",
    "null",
    "no tokenizer",
    "weights as a pickle with a payload",
    "a pickle with a payload",
    "zip with a payload",
    "other contents",
    "another template",
    "the log folder is a file",
    "a GPU where there is none",
    "a value out of range",
    "of a broken prompt.json",
    "style: a rate of NaN",
}
CASES = [case for case in cases() if case.name in CHOSEN]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Models, data and a finished run, which no case may damage."""
    made = make_world(tmp_path_factory.mktemp("world"))
    before = made.digests()
    yield made
    assert not damaged(before, made.digests())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}, {case.name}")
def test_a_mistake_is_one_sentence(
    case: Case,
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        given = content if isinstance(content, bytes) else world.filled(content, tmp_path).encode()
        path.write_bytes(given)
    args = [world.filled(arg, tmp_path) for arg in case.args]
    prepared = case.prepare(world, tmp_path) if case.prepare else nullcontext()
    with prepared, pytest.raises(SystemExit) as stop:  # some see at their end that no payload ran
        main(args)
    assert stop.value.code == MISTAKE
    said = capsys.readouterr().err
    message = said.strip().splitlines()[-1]
    assert is_sentence(message)
    assert "Traceback" not in said
    assert all(part in message for part in case.says)


def test_every_chosen_case_is_there():
    assert {case.name for case in CASES} == CHOSEN


def test_the_catalogue_is_large_and_names_each_case_once():
    names = [(case.group, case.name) for case in cases()]
    assert len(names) == len(set(names)) >= 100
