"""`python -m lightning_prompts` and the command `lightning-prompts`."""

import sys

from lightning_prompts.cli.commands import answer


def run() -> None:
    """Run the command line; success is exit status 0."""
    answer(sys.argv[1:])  # before the import that takes seconds
    from lightning_prompts.cli.main import main

    main()  # returns what was run, which a console script would take for a failure


if __name__ == "__main__":
    run()
