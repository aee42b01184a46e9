"""`lightning-prompts export`: a learned prompt as files for others, and to the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.text import Text

from lightning_prompts.cli.parser import PromptParser
from lightning_prompts.files.console import console, notice
from lightning_prompts.files.errors import PromptError, first_line
from lightning_prompts.files.hub import hub_reachable
from lightning_prompts.files.text import PROGRAM, short_path
from lightning_prompts.report.snippet import Format


def export(args: Sequence[str]) -> None:
    """Write a prompt's files, and push them where that is asked for.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If there is no prompt, or it cannot be written, read or pushed so.
    """
    from lightning_prompts.lm.frozen import FrozenLM
    from lightning_prompts.report import export as writing
    from lightning_prompts.runs.prompt import load_prompt, read_record

    given = parser().parse_args(list(args))
    if given.run is None or given.format is None:
        what = "which prompt" if given.run is None else "as what"
        raise PromptError(
            f"Say {what}: {PROGRAM} export RUN --format {', '.join(get_args(Format))} (--help)."
        )
    run, kind = Path(given.run), given.format
    output = Path(given.output) if given.output else folder_of(run) / f"export-{kind}"
    writing.require_empty(output)
    if given.push_to_hub:
        require_token(given.push_to_hub)
    lm, of = None, read_record(run).lm
    if given.lm.name is not None:
        lm = FrozenLM(given.lm.name, add_bos=of.begins)
    elif of.quantize:  # the program reads the model whole
        lm = FrozenLM(of.name, of.revision, add_bos=of.begins)
    prompt = load_prompt(run, lm)
    writing.refuse(prompt, kind)
    notice(f"Writing {prompt.text!r}, and running its program...")
    ran = writing.export(prompt, kind, output, given.license)
    names = ", ".join(sorted(path.name for path in output.iterdir()))
    console.print(Text(f"Exported: {short_path(output)} ({names})"), soft_wrap=True)
    console.print(Text(ran), soft_wrap=True)
    if given.push_to_hub:
        console.print(Text(f"Pushed: {push(output, given.push_to_hub)}"), soft_wrap=True)


def parser() -> PromptParser:
    """The command's options."""
    known = PromptParser(
        prog=f"{PROGRAM} export",
        description="Write a prompt as files that others read, with a model card and a program of "
        "plain transformers, or of PEFT, that was run on them.",
        allow_abbrev=False,
    )
    known.add_argument(
        "run",
        nargs="?",
        type=str | None,
        default=None,
        metavar="RUN",
        help="A run's folder, its prompt.json, a checkpoint.",
    )
    known.add_argument(
        "--format",
        type=Format | None,
        default=None,
        help="peft: an adapter, where the prompt comes first. text: what a user pastes. "
        "safetensors, json: the vectors, or the tokens, for any template.",
    )
    known.add_argument(
        "--output",
        type=str | None,
        default=None,
        metavar="FOLDER",
        help="New or empty; by default export-FORMAT in the run's folder.",
    )
    known.add_argument(
        "--license", type=str | None, default=None, help="For the card, for example apache-2.0."
    )
    known.add_argument(
        "--push_to_hub",
        type=str | None,
        default=None,
        metavar="REPO",
        help="Repository of the Hugging Face hub, owner/name; wants a token (hf auth login).",
    )
    known.add_argument(
        "--lm.name",
        type=str | None,
        default=None,
        help="Where the language model is now, if not where the run had it.",
    )
    return known


def require_token(repo: str) -> None:
    """Refuse to push where that cannot be done, before any work.

    Raises:
        PromptError: If there is no token, or the hub cannot be reached.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise PromptError(
            f"--push_to_hub {repo}: no token of the Hugging Face hub is set; run hf auth login, or "
            "set HF_TOKEN; without --push_to_hub the files are written here."
        )
    if not hub_reachable():
        raise PromptError(
            f"--push_to_hub {repo}: the Hugging Face hub cannot be reached; leave it out, and push "
            "the folder later with hf upload."
        )


def push(folder: Path, repo: str) -> str:
    """Upload a folder; returns its address.

    Raises:
        PromptError: If the hub does not take it; what was written stays.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repo, exist_ok=True)
        return str(api.upload_folder(repo_id=repo, folder_path=folder))
    except Exception as error:  # whatever the library raises
        raise PromptError(
            f"--push_to_hub {repo}: the hub did not take it ({first_line(error)}); the files are "
            f"in {short_path(folder)}: push them with hf upload {repo} {short_path(folder)}."
        ) from error


def folder_of(run: Path) -> Path:
    """The run's folder, whatever of it was given."""
    if run.is_dir():
        return run
    return run.parent.parent if run.suffix == ".ckpt" else run.parent
