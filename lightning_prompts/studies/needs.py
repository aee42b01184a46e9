"""Before a study starts: do its command lines parse, what do they fetch, what is limited?"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_prompts.cli.app import PromptCLI, parsed_options
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.hub import hub_reachable
from lightning_prompts.files.option_types import Names, metadata
from lightning_prompts.files.text import looks_like_path
from lightning_prompts.lm.sources import converted_folder, find_model
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.plan import example_args

ABSENT = object()


class OnlyParses(PromptCLI):
    """Knows the configuration of a command line, and builds no model and no data."""

    def instantiate_classes(self) -> None:
        """Nothing."""


def needs(config: StudyConfig) -> list[str]:
    """What has to be fetched before or while the study runs, in words.

    Raises:
        PromptError: If a run's command line has a mistake, a local file is missing, or something is
            to be fetched and the hub cannot be reached.
    """
    found: dict[str, None] = {}
    for _, parsed in parsed_examples(config):
        found.update(dict.fromkeys(_of_run(parsed)))
    if any("hub" in need for need in found) and not hub_reachable():
        raise PromptError(
            f"To fetch: {'; '.join(found)}. The Hugging Face hub cannot be reached; give local "
            "copies with --data.path FOLDER and --lm.name FOLDER, or connect and try again."
        )
    return list(found)


def parsed_examples(config: StudyConfig) -> Iterator[tuple[str, Namespace]]:
    """Variants with configurations in which every value that is varied occurs.

    Raises:
        PromptError: If a command line has a mistake, with the variant's name.
    """
    for variant, args in example_args(config):
        try:
            yield variant, OnlyParses(args, run=False).config["fit"]
        except PromptError as error:
            place = f"variants.{variant}: " if variant else ""
            raise PromptError(f"{place}{error}") from error


def limited(config: StudyConfig) -> StudyConfig:
    """The study with every option that is above its limit, or without bound, set to the limit.

    What is below already, what a variant's classes do not have, what is varied, and what the
    command line or the block `override` asks for stays.

    Raises:
        PromptError: If a run's command line has a mistake.
    """
    if not config.limits:
        return config
    variants = dict(config.variants)
    limits = {key: limit for key, limit in config.limits.items() if key not in config.override}
    for name, parsed in parsed_examples(config):
        lowered = {
            key: limit
            for key, limit in limits.items()
            if key not in config.space_of(name) and _is_above(inner(parsed, *key.split(".")), limit)
        }
        variants[name] = replace(variants[name], limits={**variants[name].limits, **lowered})
    return replace(config, variants=variants)


def inner(part: Any, *names: str) -> Any:
    """A nested option, whichever of its blocks are classes; `ABSENT` where there is none."""
    for name in names:
        if part is None or not hasattr(part, "get"):
            return ABSENT
        init_args = part.get("init_args")
        known = part.get(name, ABSENT) if init_args is None else init_args.get(name, ABSENT)
        part = known if known is not ABSENT else part.get(name, ABSENT)
    return part


def _of_run(parsed: Namespace) -> Iterator[str]:
    """What one run needs."""
    for option in parsed_options(parsed):
        hint = None if option.parameter is None else option.parameter.hint
        if (names := metadata(hint, Names)) and option.value:
            revision = option.block.get("revision")
            for name in option.value if isinstance(option.value, list) else [option.value]:
                yield from _model(f"--{option.name}", str(name), revision, names.missing)
    yield from _data(parsed.data.init_args)


def _model(option: str, name: str, revision: str | None, missing: str) -> Iterator[str]:
    """A language model, or where a user makes it, its folder."""
    if missing and Path(name).expanduser().is_dir():
        return
    if missing and looks_like_path(name):
        raise PromptError(f"{option} {name}: no such folder; {missing}.")
    source = find_model(name, revision, option)
    if source.kind == "gguf" and not converted_folder(source).is_dir():
        folder = converted_folder(source)
        yield f"{source.label}: to convert once ({source.conversion}), in {folder}"
    if source.kind == "hub":
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(source.location, "config.json", revision=revision)
        if not isinstance(cached, str):
            yield f"the model {source.location} from the hub"


def _data(options: Mapping[str, Any]) -> Iterator[str]:
    from lightning_prompts.tasks.sources import DataSource

    path = options.get("path")
    try:
        source = DataSource(path, options.get("subset"), options.get("data_revision"))
    except PromptError as error:
        raise PromptError(f"{error} docs/data.md says where data sets come from.") from error
    if source.is_hub:
        import datasets

        cache = Path(datasets.config.HF_DATASETS_CACHE)
        if not (cache / str(path).replace("/", "___").lower()).is_dir():
            yield f"the data set {path} from the hub"


def _is_above(value: Any, limit: float) -> bool:
    """Whether a value is above, or none, which stands for all there is."""
    if value is ABSENT:
        return False
    return value is None or (isinstance(value, int | float) and not 0 <= value <= limit)
