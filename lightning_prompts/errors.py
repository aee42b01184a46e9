"""The exceptions that mean: the user can fix this."""


class PromptError(Exception):
    """A mistake that the user can fix; its message is one sentence with the cause and the fix.

    The command line prints the message alone and exits with status 2.
    """


class RunError(PromptError):
    """Why a run cannot go on: a sentence without its full stop.

    The command line adds what was saved of the run, and how to go on from there.
    """
