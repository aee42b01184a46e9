"""What is said on the way: this package's own notices, and not the libraries' that do not apply."""

import logging
import re
import sys
import warnings

from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from lightning_prompts.files.console import notice

WARNINGS = (
    # The rows are tokenized before the first step; workers would only copy them.
    r".*does not have many workers.*",
    # Lightning calls jsonargparse by an old name.
    r".*skip_none.*",
    # The frozen language model is meant to be in eval mode.
    r".*module\(s\) in eval mode.*",
    # A resumed run goes on in its own folder.
    r"Checkpoint directory .* exists and is not empty.*",
    # Each worker reads windows of its own.
    r"Your `IterableDataset` has `__len__` defined.*",
    # Where all windows are there, none is left to read.
    r"Total length of `DataLoader` across ranks is zero.*",
    # Small data sets have fewer batches than a logging interval; it counts steps across epochs.
    r"The number of training batches .* is smaller than the logging interval.*",
    # Lightning uses a torch name that is being renamed.
    r".*isinstance\(treespec, LeafSpec\).*",
    # A pickle that is no checkpoint is refused in a sentence.
    r"Detected pickle protocol .*",
    # One process for each device is what devices: 1 asks for.
    r".*was configured to use a single GPU.*",
    # Nothing is changed in place in what a divided model returns.
    r"FSDP2-wrapped module .* returned a view tensor.*",
)
HINTS = re.compile(
    r"(GPU|TPU|HPU) available|^💡|LOCAL_RANK|litlogger|LitLogger"
    # Said by the command line itself, in a line or in the table.
    r"|Seed set to|Automatic Mixed Precision|`Trainer.fit` stopped|[Ff]rom the checkpoint"
    r"|Initializing distributed|distributed_backend=|^Restoring states"
    r"|was configured so validation will run|to estimate number of stepping batches"
)


def silence() -> None:
    """Filter the libraries' warnings and hints, and let this package's notices through."""
    own = logging.getLogger("lightning_prompts")
    if not own.handlers:
        own.addHandler(_Notices())
        own.setLevel(logging.INFO)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logger = logging.getLogger(name)
        if _wanted not in logger.filters:
            logger.addFilter(_wanted)
    # torchao, which transformers imports where it is installed, tells of what it does not load.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


class _Notices(logging.Handler):
    """Shows records on the error output, apart from the results, by the first process alone."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(rank_zero_only, "rank", 0) == 0:
            # Bars stand aside meanwhile: the line would go on where they end.
            with tqdm.external_write_mode(sys.stderr):
                notice(record.getMessage())


def _wanted(record: logging.LogRecord) -> bool:
    return not HINTS.search(record.getMessage())
