"""Peak memory and seconds of a soft step in a process of its own, against PEFT's."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from benchmarks.jobs import OURS, PEFT, THEIRS, Job, Measure, Place, compared, furthest, pairs
from benchmarks.lines import Line
from benchmarks.outputs import json_lines
from benchmarks.records import Record

SHAPE = "P=10, T=32, B=32, fp32"
RECOMPUTED = "recompute"


def memory(place: Place) -> Iterator[Job]:
    """Three steps a process; the language model is read in it, so its weights count."""
    from benchmarks.soft_peak import can_recompute

    few = ["--batch", "4", "--text", "8"] if place.small else []

    def way(name: str, model: str, _: int) -> Measure:
        ran = place.script("soft_peak", name, "--model", model, *few)
        assert ran.peak_mib is not None
        (said,) = json_lines(ran.lines)
        values = {"peak": ran.peak_mib, "step": said["step_seconds"]}
        return Measure(values, {"loss": [said["first_loss"]]})

    ways = {
        THEIRS: lambda repetition: way("peft", str(place.weights()), repetition),
        OURS: partial(way, "ours", place.model),
    }
    if can_recompute():
        ways[RECOMPUTED] = partial(way, "recompute", place.model)

    def lines(records: Mapping[str, Sequence[Record]]) -> Iterator[Line]:
        for side in (OURS, RECOMPUTED):
            kind = "" if side == OURS else ", recomputed"
            peak = Line(f"peak memory of a soft step, {SHAPE}, CPU{kind}", PEFT, 0.45, cost=True)
            step = Line(f"that step's time{kind}", PEFT, 1.1, cost=True)
            if side not in records:
                yield peak.not_run("FrozenLM has no option recompute")
                continue
            words = ""
            if records[side]:
                apart = furthest(pairs(records, "loss", side))
                words = f"the first step's loss over the two words, to {apart:.0e}"
            yield compared(peak, records, "peak", words, ours=side, unit="MiB", besides=True)
            yield compared(step, records, "step", words, ours=side)

    yield Job("memory", ways, lines, peer="peft")
