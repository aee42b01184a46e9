"""Payloads in checkpoints and model folders, and hostile texts in rows, names and prompts."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from lightning_prompts.files.text import shorten
from lightning_prompts.report.text import markdown
from soak import wrong_models
from soak.case import Case, Outcome, environment, run_case
from soak.hostile import ALL, TEXTS, WORD, controls_in
from soak.world import World, damaged, fit, make_world, review_lines
from tests.tiny import save_model

REMOTE = """
import pathlib
pathlib.Path("pwned").write_text("ran")
from transformers import GPT2LMHeadModel
class Own(GPT2LMHeadModel):
    pass
"""


LABELS = (ALL, "negative")


@dataclass(frozen=True)
class Finding:
    """What was tried, what came of it, and whether it was as it should be."""

    what: str
    result: str
    good: bool


def main(folder: Path) -> str:
    """Try everything.

    Args:
        folder: Empty.

    Returns:
        The section in Markdown.
    """
    os.environ.update(environment(folder))
    world = make_world(folder)
    before = world.digests()
    found = [*refused(world, folder / "refused"), *shown(world, folder / "shown")]
    harmed = damaged(before, world.digests())
    found.append(
        Finding(
            "files of the finished run, the model and the data",
            f"{len(harmed)} changed",
            not harmed,
        )
    )
    head = ["| tried | came of it | as it should be |", "| --- | --- | --- |"]
    lines = [
        f"| {markdown(one.what)} | {markdown(shorten(one.result, 200))} | {verdict} |"
        for one in found
        for verdict in ("yes" if one.good else "NO",)
    ]
    return "\n".join([*head, *lines])


# ---- refused


def refused(world: World, folder: Path) -> Iterator[Finding]:
    """Payloads, each in a process of its own: exit status 2, a sentence, and no file of theirs."""
    cases = [case for case in wrong_models.cases() if "payload" in case.name]
    cases.append(
        Case("model", "Python code beside the model's weights", fit("--lm.name=<here>/lm"),
             ("--lm.trust_remote_code true",), prepare=own_code)
    )  # fmt: skip
    for number, case in enumerate(cases):
        here = folder / str(number)
        outcome = run_case(case, world, here)
        ran = (here / wrong_models.MARK).exists()
        good = not set(outcome.faults) - {"slow"} and not ran
        yield Finding(f"{case.group}: {case.name}", said(outcome, ran), good)
    trusting = Case("model", "the same with --lm.trust_remote_code true",
                    fit("--lm.name=<here>/lm", "--lm.trust_remote_code=true"), prepare=own_code,
                    status=0)  # fmt: skip
    outcome = run_case(trusting, world, folder / "trusted")
    ran = (folder / "trusted" / wrong_models.MARK).exists()
    announced = "may run code of its own" in outcome.output
    good = outcome.status == 0 and ran and announced
    yield Finding(trusting.name, "ran, and was announced" if good else said(outcome, ran), good)


def said(outcome: Outcome, ran: bool) -> str:
    """An outcome in words."""
    return f"exit status {outcome.status}{', PAYLOAD RAN' if ran else ''}: {outcome.message}"


@contextlib.contextmanager
def own_code(world: World, here: Path) -> Iterator[None]:
    """A copy of the model that wants to run a module of its own."""
    folder = Path(shutil.copytree(world.lm, here / "lm"))
    config = json.loads((folder / "config.json").read_text())
    # A kind of its own: of a kind that transformers knows, it would take its own class.
    config |= {
        "model_type": "own",
        "architectures": ["Own"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    code = REMOTE + (
        "from transformers import GPT2Config\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own'\n"
        "Own.config_class = OwnConfig\n"
    )
    (folder / "own.py").write_text(code)
    yield


# ---- shown


def shown(world: World, folder: Path) -> Iterator[Finding]:
    """Hostile rows, labels and names through a fit, a prediction and a report."""
    save_model(folder / "lm", 0, 4096, ALL)  # knows every hostile character
    texts = [*TEXTS.values(), "x" * WORD]
    rows = [
        {"text": f"{text} {i}", "label": label} for i, text in enumerate(texts) for label in LABELS
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    content = {
        "data": {
            "init_args": {
                "path": "own",
                "name": f"a{ALL}",
                "verbalizer": dict(zip(LABELS, (" great", " terrible"), strict=True)),
                "template": "{prompt} {text} " + ALL,
            }
        },
        "model": {"init_args": {"text": ALL}},
        "baselines": {"text": ALL},
    }
    given = {f"own/{split}.jsonl": lines for split in ("train", "validation", "test")}
    options = (
        "--config=hostile.yaml",
        f"--lm.name={folder / 'lm'}",
        "--data.path=own",
        "--experiment=x",
    )
    case = Case(
        "shown",
        "hostile texts",
        fit(*options, tuner="manual"),
        files={**given, "hostile.yaml": json.dumps(content)},
        status=0,
    )
    here = folder / "fit"
    outcome = run_case(case, world, here)
    yield terminal("a fit with hostile rows, labels, names and prompt", outcome)
    run = here / "logs" / "x" / "version_0"
    own = here / "own"
    for command in ("test", "predict"):
        args = (
            command,
            f"--config={run / 'config.yaml'}",
            "--ckpt_path=best",
            f"--data.path={own}",
        )
        case = Case("shown", command, args, status=0)
        yield terminal(command, run_case(case, world, folder / command))
    yield terminal(
        "report",
        run_case(Case("shown", "report", ("report", str(run)), status=0), world, folder / "report"),
    )
    yield from files(run)
    unknown = review_lines(4) + json.dumps({"text": "x", "label": ALL + "y" * WORD}) + "\n"
    case = Case("shown", "an unknown label", fit("--data.path=<here>/own"), ("row 5",),
                {"own/train.jsonl": unknown, "own/validation.jsonl": review_lines(4)})  # fmt: skip
    outcome = run_case(case, world, folder / "unknown")
    yield terminal("a mistake that quotes a hostile label of 100 kB", outcome, 4000)


def terminal(what: str, outcome: Outcome, longest: int = 10**9) -> Finding:
    """What a command wrote to the terminal."""
    bad = controls_in(outcome.output, allowed="\n\r")  # a progress bar returns to its line's begin
    good = outcome.status == outcome.case.status and not bad and len(outcome.output) < longest
    size = f"{len(outcome.output):,} characters"
    return Finding(
        f"terminal: {what}",
        f"exit status {outcome.status}, {size}, control codes: {bad or 'none'}",
        good,
    )


def files(run: Path) -> Iterator[Finding]:
    """What a run and its report left."""
    for name in ("prompt.json", "predictions.jsonl", "test.json"):
        if (run / name).is_file():
            bad = controls_in((run / name).read_text(encoding="utf-8", errors="surrogateescape"))
            yield Finding(f"file: {name}", f"control codes: {bad or 'none'}", not bad)
    for path in sorted((run / "report").glob("*")):
        if path.suffix in (".html", ".md", ".csv"):
            text = path.read_text(encoding="utf-8")
            bad = controls_in(text) + (markup(text) if path.suffix == ".html" else [])
            if path.suffix == ".md":
                bad += re.findall(r"(?<!\\)<script|(?<!\\)<img", text)
            yield Finding(f"file: report/{path.name}", f"live: {bad or 'nothing'}", not bad)
    texts = tensorboard_texts(run)
    bad = [c for text in texts for c in controls_in(text)]
    bad += [tag for text in texts for tag in live_markdown(text)]
    yield Finding(
        "TensorBoard's texts",
        f"{len(texts)} read, live: {bad or 'nothing'}",
        bool(texts) and not bad,
    )


class _Live(HTMLParser):
    """Collects what a browser would run or fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Scripts, handlers and addresses elsewhere."""
        if tag in ("script", "iframe", "object", "embed"):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            address = (value or "").strip().lower()
            if name.startswith("on") or address.startswith(("javascript:", "http:")):
                self.found.append(f"{tag} {name}={address[:40]}")


def markup(text: str) -> list[str]:
    """What is live in a page."""
    parser = _Live()
    parser.feed(text)
    return [found for found in parser.found if "w3.org" not in found]


def live_markdown(text: str) -> list[str]:
    """Tags outside of code in a Markdown text, where TensorBoard would render them."""
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)
    return re.findall(r"<\w+|\]\(", outside)


def tensorboard_texts(run: Path) -> list[str]:
    """All texts of a run's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for path in sorted(run.glob("events*")):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["tensors"]:
            if events.summary_metadata[tag].plugin_data.plugin_name != "text":
                continue  # the layout of the charts
            for event in events.Tensors(tag):
                found += [
                    value.decode("utf-8", "replace") for value in event.tensor_proto.string_val
                ]
    return found
