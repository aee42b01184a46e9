"""What the runs of one worker share, and what one run must not leave to the next."""

from pathlib import Path

import torch

from lightning_prompts.studies.shared import SharedLM


def test_one_model_for_equal_options(lm_folder: Path):
    make = SharedLM()
    first = make(name=str(lm_folder))
    assert make(name=str(lm_folder)) is first
    assert make.loaded == 1
    assert make(name=str(lm_folder), text_cache=0.5) is not first
    assert make.loaded == 2


def test_a_model_that_a_run_has_changed_is_read_again(lm_folder: Path):
    make = SharedLM()
    changed = make(name=str(lm_folder)).to(torch.bfloat16)
    assert make(name=str(lm_folder)) is not changed
    assert make(name=str(lm_folder)).embedding_table.dtype == torch.float32


def test_what_one_run_s_texts_were_decides_nothing_for_the_next(lm_folder: Path):
    make = SharedLM()
    cache = make(name=str(lm_folder)).text_cache
    cache.room = 0  # nothing came back in the first run
    assert make(name=str(lm_folder)).text_cache is cache
    assert cache.room == cache.bound > 0
