"""Texts of others, in terminals, files, TensorBoard and pages: shown, never obeyed."""

import io
import json

import pytest
from rich.table import Table
from rich.text import Text

from lightning_prompts.callbacks.prompt_text import code
from lightning_prompts.files.atomic_files import write_json
from lightning_prompts.files.console import LONGEST, InertConsole, fail, notice
from lightning_prompts.files.escaping import json_text, one_line, printable, visible
from lightning_prompts.files.text import shorten_middle
from lightning_prompts.runs.prompt_list import markdown_table
from soak.hostile import ALL, CONTROLS, TEXTS, WORD, controls_in
from soak.security import live_markdown, markup


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("how", [visible, one_line, printable])
def test_no_control_character_is_left(how, name: str):
    shown = how(TEXTS[name])
    assert not controls_in(shown)
    assert how is not one_line or "\n" not in shown


def test_plain_text_stays_as_it_is():
    text = 'Ünïcode, "quotes" and 日本語: 3 < 4 [x] \N{GRINNING FACE}'
    assert visible(text) == one_line(text) == printable(text) == text


@pytest.mark.parametrize("name", TEXTS)
def test_a_console_shows_tables_and_texts_inert(name: str):
    file = io.StringIO()
    console = InertConsole(file=file, force_terminal=True, width=300)
    table = Table(title=Text(TEXTS[name], "bold"))
    table.add_column(Text(TEXTS[name]))
    table.add_row(Text(TEXTS[name]), style="red")
    console.print(table)
    console.print(Text(TEXTS[name]), soft_wrap=True)
    # What is left are the console's own styles.
    own = file.getvalue().replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[31m", "")
    own = own.replace("\x1b[1;31m", "")
    assert not controls_in(own)


@pytest.mark.parametrize("say", [fail, notice])
def test_messages_are_inert_and_of_bounded_length(say, capsys):
    say(f"It is {ALL}{'x' * WORD}; do this.")
    said = capsys.readouterr().err
    assert not controls_in(said)
    assert len(said) <= LONGEST + 1
    assert said.startswith("It is <script>")  # as text: a terminal knows no tags
    assert said.endswith("; do this.\n")


def test_a_long_message_keeps_both_ends():
    assert shorten_middle("a" * 50 + "b" * 50, 21) == "a" * 10 + "…" + "b" * 10


def test_json_has_escapes_and_the_same_value(tmp_path):
    content = {"text": ALL + "\U000e0001", "ü": ["日本", "\x85"]}
    write_json(tmp_path / "a.json", content)
    written = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(written) == content
    assert not controls_in(written)
    assert "日本" in written  # what is printable stays readable
    assert json_text(json.dumps(ALL, ensure_ascii=False)).isprintable()


@pytest.mark.parametrize("name", TEXTS)
def test_tensorboards_markdown_is_code(name: str):
    table = markdown_table([{"text": TEXTS[name], "times": 1}])
    assert len(table.splitlines()) == 3
    for shown in (table, code(TEXTS[name])):
        assert not controls_in(shown)
        assert not live_markdown(shown)


def test_the_checks_see_what_is_live():
    assert controls_in("".join(CONTROLS)) == sorted(CONTROLS)
    assert markup('<p onclick="x()"><script>') == ["p onclick=x()", "<script>"]
    assert live_markdown("a <b> `<i>` [c](d)") == ["<b", "]("]
