"""What the checkpoints in a run's folder are called."""

CHECKPOINTS = "checkpoints"  # a folder
BEST, LAST, PREVIOUS = (f"{name}.ckpt" for name in ("best", "last", "previous"))
