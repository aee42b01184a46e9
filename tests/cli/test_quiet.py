"""Notices of the package are shown, by one process, and the libraries' hints are not."""

import logging
import sys

import pytest
from tqdm import tqdm

from lightning_prompts.cli.quiet import silence


def test_notices_go_to_the_error_output(capsys: pytest.CaptureFixture[str]):
    silence()
    silence()  # as a program that calls main twice
    logging.getLogger("lightning_prompts.lm.loading").info("Converting %s, once", "x[/b]")
    captured = capsys.readouterr()
    assert captured.err == "Converting x[/b], once\n"
    assert captured.out == ""


def test_a_bar_stands_aside_for_a_notice(capsys: pytest.CaptureFixture[str]):
    silence()
    with tqdm(total=2, desc="Training", file=sys.stderr):
        logging.getLogger("lightning_prompts").info("About 3 s a step")
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert "About 3 s a step" in lines
    assert "Training" in lines[-1]


def test_other_ranks_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    silence()
    monkeypatch.setattr("lightning_prompts.cli.quiet.rank_zero_only.rank", 1)
    logging.getLogger("lightning_prompts").info("twice?")
    assert capsys.readouterr().err == ""


def test_hints_of_libraries_are_left_out(caplog: pytest.LogCaptureFixture):
    silence()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.info("GPU available: False, used: False")
        logger.info("Something that matters")
    assert [record.getMessage() for record in caplog.records] == ["Something that matters"]
