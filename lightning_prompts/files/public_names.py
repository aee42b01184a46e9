"""Names of the package's classes in configurations: without the module, so that files can move."""

import re

import lightning_prompts

_PATH = re.compile(r"\blightning_prompts(?:\.[a-z_]+)+\.([A-Z]\w+)\b")


def public_names(text: str) -> str:
    """A text in which the public classes have their public names, as runs of before have not.

    >>> public_names("class_path: lightning_prompts.prompt_init.FromText")
    'class_path: lightning_prompts.FromText'
    """
    return _PATH.sub(
        lambda found: (
            f"lightning_prompts.{found[1]}" if found[1] in lightning_prompts.__all__ else found[0]
        ),
        text,
    )
