"""The one exception that means: the user can fix this."""


class PromptError(Exception):
    """A mistake that the user can fix; its message is one sentence with the cause and the fix.

    The command line prints the message alone and exits with status 2.
    """
