"""`python -m lightning_prompts` is `lightning-prompts`."""

from lightning_prompts.cli import main

if __name__ == "__main__":
    main()
