"""`lightning-prompts study`: what it is asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_prompts.cli.parser import find_config
from lightning_prompts.files.errors import PromptError
from lightning_prompts.studies.config import study_parser

DESCRIPTION = (
    "Run a study: every combination of a grid, or a search, each run an ordinary fit with a test. "
    "Any option of fit may follow and counts for all runs, and --study.KEY VALUE changes the study "
    "itself. The same command goes on with a study that was stopped, and started on another "
    "machine with the same --study.storage it takes runs from the same study."
)


@dataclass
class Asked:
    """What the command line asks for.

    Attributes:
        configs: Files of the study.
        workers: Processes.
        estimate: Whether only the plan is wanted.
        retry_failed: Whether runs that failed before are run again.
        is_worker: Whether another process started this one.
        options: Everything else, by dotted names.
    """

    configs: list[Path] = field(default_factory=list)
    workers: int = 1
    estimate: bool = False
    retry_failed: bool = False
    is_worker: bool = False
    options: dict[str, str] = field(default_factory=dict)


def study(args: Sequence[str]) -> None:
    """Run a study.

    Args:
        args: As on the command line; `--help` lists them.

    Raises:
        PromptError: If the user can fix it.
        SystemExit: 1 where every run failed; 130 or 143 where a signal stopped it.
    """
    asked = parse(args)
    # Heavy: after the mistakes that can be seen without them.
    from lightning_prompts.studies.files import read_config

    config = read_config(asked.configs, asked.options)
    from lightning_prompts.studies import running

    if asked.is_worker:
        running.work(config)
    else:
        running.run(config, asked.workers, asked.estimate, asked.retry_failed)


def parse(args: Sequence[str]) -> Asked:
    """Divide the command line into the command's own options and those of runs.

    Raises:
        PromptError: If something is missing or is no option.
        SystemExit: After `--help`.
    """
    asked = Asked()
    given = list(_pairs(args))
    for name, value in given:
        if name in ("config", "c"):
            asked.configs.append(find_config(_needed(name, value)))
        elif name == "workers":
            asked.workers = _count(_needed(name, value))
        elif name in ("estimate", "retry_failed", "worker"):
            if value not in (None, "true", "false"):
                raise PromptError(f"--{name} {value}: give true or false, or nothing.")
            setattr(asked, {"worker": "is_worker"}.get(name, name), value != "false")
        elif name in ("help", "h"):
            parser().print_help()
            raise SystemExit(0)
        else:
            asked.options[name] = _needed(name, value)
    if not asked.configs:
        raise PromptError("Say which study: --config configs/study/demo.yaml (--help says more).")
    return asked


def parser() -> ArgumentParser:
    """The command's own options, for its help."""
    known = study_parser(prog="lightning-prompts study", description=DESCRIPTION)
    known.add_argument(
        "--config", help="The study's file, then files that change it: configs/study/reduced.yaml."
    )
    known.add_argument(
        "--workers", type=int, default=1, help="Runs at once, each in a process with its own model."
    )
    known.add_argument(
        "--estimate", type=bool, default=False, help="Only say what the study will cost."
    )
    known.add_argument(
        "--retry_failed", type=bool, default=False, help="Run again what failed before."
    )
    return known


def _pairs(args: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Options with their values, None where none follows."""
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if not arg.startswith("-") or arg.strip("-") == "":
            raise PromptError(f"{arg}: no option; options begin with --, for example --workers 2.")
        name, equals, value = arg.lstrip("-").partition("=")
        if equals:
            yield name, value
        elif rest and not rest[0].startswith("--"):
            yield name, rest.pop(0)
        else:
            yield name, None


def _needed(name: str, value: str | None) -> str:
    if value is None:
        raise PromptError(f"--{name} needs a value.")
    return value


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise PromptError(f"--workers {value}: give a whole number, at least 1.")
    return int(value)
