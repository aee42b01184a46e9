"""`python -m lightning_prompts` and the command `lightning-prompts`."""


def run() -> None:
    """Run the command line; success is exit status 0."""
    from lightning_prompts.cli import main

    main()  # returns what was run, which a console script would take for a failure


if __name__ == "__main__":
    run()
