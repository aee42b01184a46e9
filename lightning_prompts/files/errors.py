"""The exceptions that mean: the user can fix this; and what an error says in short."""

from lightning_prompts.files.option_names import for_reader


class PromptError(Exception):
    """A mistake that the user can fix; its message is one sentence with the cause and the fix.

    The command line prints the message alone and exits with status 2.

    Args:
        message: Names options as the command line does; see `option_names`.

    >>> str(PromptError("Raise --trainer.max_steps."))
    'Raise Trainer(max_steps=...).'
    """

    def __init__(self, message: str) -> None:
        super().__init__(for_reader(message))


class RunError(PromptError):
    """Why a run cannot go on: a sentence without its full stop.

    The command line adds what was saved of the run, and how to go on from there.
    """


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says, without its full stop; else its class.

    >>> first_line(ValueError("This is wrong.\nSee there.")), first_line(KeyError())
    ('This is wrong', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
