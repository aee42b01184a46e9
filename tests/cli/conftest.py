"""Messages to whoever typed a command."""

from collections.abc import Iterator

import pytest

from lightning_prompts.files.option_names import speaking_flags


@pytest.fixture(autouse=True)
def _speaking_flags() -> Iterator[None]:
    """As `main` does: these tests call parts of the command line by themselves."""
    with speaking_flags():
        yield
