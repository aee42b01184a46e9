"""What a task tells of the rows that it read."""

from dataclasses import dataclass, field


@dataclass
class TaskReport:
    """What was read, for the tables of a run.

    Attributes:
        sources: Split to file, or to data set and split on the Hub.
        rows: Split to number of rows.
        cut: Split to number of rows whose text was cut to `max_tokens`; tokenized splits only.
        left_out: Split to number of bad rows of its source that are not among them.
        classes: Split to number of rows of each label.
        majority_label: The most frequent label of the training rows, or of the first split read
            where there are none.
        max_tokens: Most tokens that an example may have beside the prompt.
    """

    sources: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    majority_label: str | None = None
    max_tokens: int = 0
