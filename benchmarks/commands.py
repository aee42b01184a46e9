"""The comparisons of whole commands: against an older build, and against PEFT in a plain loop."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from benchmarks.builds import Build
from benchmarks.jobs import (
    ONE_STEP,
    OURS,
    PEFT,
    THEIRS,
    Job,
    Measure,
    Place,
    compared,
    furthest,
    pairs,
    span,
)
from benchmarks.lines import Line
from benchmarks.outputs import first_number, json_lines, logged, prompts, table
from benchmarks.processes import Ran, run
from benchmarks.records import Record

Found = Mapping[str, Sequence[Record]]
ENOUGH = 0.84  # val/accuracy that [accuracy] waits for


def demo(place: Place) -> Iterator[Job]:
    """`lightning-prompts demo`, and when it shows its first number."""
    few = ["--lm.name", place.model, "--trainer.accelerator", "cpu", "--trainer.max_steps", "2"]
    extra = [*few, "--trainer.val_check_interval", "1"] if place.small else []

    def way(build: Build, _: int) -> Measure:
        folder = place.folder("demo")
        ran = run(build.command("demo", *extra), folder, build.environment)
        first = first_number(ran.lines)
        if first is None:
            raise SystemExit(f"{build.name}: the demo printed no number:\n{ran.lines}")
        return Measure({"seconds": whole(ran), "first": first}, {"table": table(ran.lines)})

    def lines(records: Found) -> Iterator[Line]:
        words = ""
        if records[OURS]:
            (theirs, ours), *_ = pairs(records, "table")
            common = [name for name in theirs if name in ours]
            rows = ", ".join(f"{name} {theirs[name]:.3f} and {ours[name]:.3f}" for name in common)
            words = f"accuracies of their and our table: {rows}"
        whole_line = Line("lightning-prompts demo", place.base, 0.35, cost=True)
        yield compared(whole_line, records, "seconds", words)
        first = Line("demo: until its first numbers", place.base, 0.08, cost=True)
        yield compared(first, records, "first", "theirs shows its table at its end")

    yield Job("demo", sides(place, way), lines)


def fit(place: Place) -> Iterator[Job]:
    """A whole `fit` with five validations against the same in a plain loop of PEFT's."""
    steps, every, batch = (4, 2, 4) if place.small else (100, 20, 32)

    def ours(seed: int) -> Measure:
        folder = place.folder("fit")
        limits = options(steps, every, seed, batch)
        ran = place.fit(place.ours, folder, "soft", *limits, *FLOAT32)
        found = [event.value for event in logged(folder, "val/accuracy")]
        return Measure({"seconds": whole(ran)}, {"accuracy": found[-1]})

    def theirs(seed: int) -> Measure:
        ran = peft_loop(place, steps, every, batch, seed)
        return Measure({"seconds": whole(ran)}, {"accuracy": json_lines(ran.lines)[-1]["accuracy"]})

    def lines(records: Found) -> Iterator[Line]:
        work = f"fit, prompt first, {steps} steps of {batch} rows, {steps // every} validations"
        words = ""
        if records[OURS]:
            peers, own = zip(*pairs(records, "accuracy"), strict=True)
            words = (
                "not equal by design: their loss is over the vocabulary, ours measures texts too; "
                f"last val/accuracy {span(peers)} and {span(own)}"
            )
        line = Line(work, f"{PEFT}, plain loop", 0.5, cost=True)
        yield compared(line, records, "seconds", words)

    yield Job("fit", {THEIRS: theirs, OURS: ours}, lines, peer="peft")


def accuracy(place: Place) -> Iterator[Job]:
    """Seconds until a validation has found so many right answers."""
    steps, every = (4, 2) if place.small else (300, 20)
    enough = 0.3 if place.small else ENOUGH
    small = options(steps, every, 0, 4) if place.small else []

    def way(build: Build, seed: int) -> Measure:
        folder = place.folder("accuracy")

        def arrived() -> bool:
            return any(event.value >= enough for event in logged(folder, "val/accuracy"))

        limits = [*small, "--seed_everything", str(seed)]
        ran = place.fit(build, folder, "soft", *limits, until=arrived)
        events = logged(folder, "val/accuracy")
        return arrival(ran, [(e.when - ran.began, e.step, e.value) for e in events], enough)

    def theirs(seed: int) -> Measure:
        ran = peft_loop(place, steps, every, 4 if place.small else 32, seed, enough)
        said = json_lines(ran.lines)
        events = [(e["seconds"], int(e["step"]), e["accuracy"]) for e in said]
        return arrival(ran, events, enough)

    def lines(records: Found, peer: str, asked: float) -> Iterator[Line]:
        words = "; ".join(
            f"seed {record.repetition}: {side} {record.found['said']}"
            for side in (THEIRS, OURS)
            for record in records[side]
        )
        work = f"fit until val/accuracy {enough}, own defaults"
        line = Line(work, peer, asked, cost=True)
        yield compared(line, records, "seconds", words)

    of_base = partial(lines, peer=place.base, asked=0.35)
    yield Job("accuracy", sides(place, way), of_base)
    of_peft = partial(lines, peer=f"{PEFT}, plain loop, validated every {every} steps", asked=0.15)
    ours = partial(way, place.ours)
    yield Job("accuracy", {THEIRS: theirs, OURS: ours}, of_peft, most=1, peer="peft")


def first_step(place: Place) -> Iterator[Job]:
    """From the start of the command to the end of its first step."""

    def way(build: Build, _: int) -> Measure:
        folder = place.folder("first-step")
        logs = ("--trainer.log_every_n_steps", "1")
        ran = place.fit(build, folder, "soft", *ONE_STEP, *logs)
        first = logged(folder, "train/loss")[0]
        return Measure({"seconds": first.when - ran.began}, {"loss": [first.value]})

    def lines(records: Found) -> Iterator[Line]:
        words = f"its loss, to {furthest(pairs(records, 'loss')):.0e}" if records[OURS] else ""
        line = Line("fit: from its start to its first step's end", place.base, 0.6, cost=True)
        yield compared(line, records, "seconds", words)

    yield Job("first_step", sides(place, way), lines)


GUIDED = {
    "guided_last": ("{text}{prompt}", " In one word, the movie was", 0.67),
    "guided_first": ("{prompt} {text} It was", "The movie was terrible. The movie was great.", 0.4),
}


def guided(place: Place, name: str) -> Iterator[Job]:
    """Seconds of a step of guided search, without the start of the command and its end."""
    template, text, asked = GUIDED[name]
    steps, batch = (3, 4) if place.small else (5, 64)
    # Both builds race as the older one does by default, so that they can be compared.
    few = ["--model.keep", "0.25", "--model.race", "[2]" if place.small else "[8, 16, 32]"]
    few += ["--model.candidates", "8"] if place.small else []
    rows = [] if place.small else ["--data.train_rows", "1024", "--data.validation_rows", "64"]

    def way(build: Build, seed: int) -> Measure:
        folder = place.folder(name)
        start = ["--model.init", "FromText", "--model.init.text", text]
        start += ["--model.prompt_length", "null"]
        start += ["--model.min_length", "null", "--model.max_length", "null"] if place.small else []
        limits = options(steps, steps, seed, batch)
        place.fit(
            *(build, folder, "guided_search", "--data.template", template),
            *(*limits, *rows, *few, *start),
        )
        events = logged(folder, "train/objective")
        seconds = (events[-1].when - events[0].when) / (len(events) - 1)
        found = {"objectives": [e.value for e in events], "prompts": prompts(folder)}
        return Measure({"seconds": seconds}, found)

    def lines(records: Found) -> Iterator[Line]:
        where = "last" if name == "guided_last" else "first"
        line = Line(
            f"step of guided search, prompt {where}, batch {batch}", place.base, asked, True
        )
        words, equal = "", True
        if records[OURS]:
            apart = furthest(pairs(records, "objectives"))
            texts = pairs(records, "prompts")
            equal = all(theirs == ours for theirs, ours in texts) and apart < 1e-3
            words = (
                f"chosen prompt {'equal' if equal else 'NOT equal'}, the best edit's objective at "
                f"each of {steps} steps to {apart:.0e}"
            )
        yield compared(line, records, "seconds", words, besides=equal)

    yield Job(name, sides(place, way), lines)


SMALL_STUDY = """
study: {name: tiny, sampler: grid}
base: [configs/task/sst2.yaml]
variants:
  soft: {configs: [configs/tuner/soft.yaml]}
  pez: {configs: [configs/tuner/pez.yaml]}
"""


def study(place: Place) -> Iterator[Job]:
    """A reduced study: one seed, two settings a tuner, two workers."""
    few = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2"]
    few += ["--trainer.accelerator", "cpu", "--data.batch_size", "4"]

    def way(build: Build, _: int) -> Measure:
        folder = place.folder("study")
        configs = build.folder / "configs/study"
        files = [configs / "sst2_tradeoff.yaml", configs / "reduced.yaml"]
        if place.small:
            files = [place.scratch / "study.yaml"]
            files[0].write_text(SMALL_STUDY, encoding="utf-8")
        args = [part for file in files for part in ("--config", str(file))]
        args += ["--study.seeds", "[0]", "--workers", "2", "--lm.name", place.model]
        args += ["--data.path", str(place.data), *(few if place.small else ())]
        ran = run(build.command("study", *args), folder, build.environment)
        return Measure({"seconds": whole(ran)}, {"prompts": prompts(folder)})

    def lines(records: Found) -> Iterator[Line]:
        words = ""
        if records[OURS]:
            (theirs, ours), *_ = pairs(records, "prompts")
            equal = sum(ours.get(run) == text for run, text in theirs.items())
            words = f"{len(theirs)} and {len(ours)} runs, {equal} of them end with the same prompt"
        line = Line("sst2_tradeoff with reduced.yaml, one seed, two workers", place.base, 0.6, True)
        yield compared(line, records, "seconds", words)

    yield Job("study", sides(place, way), lines)


# ---- what several of them share

FLOAT32 = ("--trainer.precision", "32-true")


def sides(
    place: Place, way: Callable[[Build, int], Measure]
) -> dict[str, Callable[[int], Measure]]:
    """The same way with both builds."""
    return {side: partial(way, build) for side, build in place.builds.items()}


def options(steps: int, every: int, seed: int, batch: int) -> list[str]:
    """Of a fit."""
    return [
        *("--trainer.max_steps", str(steps), "--trainer.val_check_interval", str(every)),
        *("--seed_everything", str(seed), "--data.batch_size", str(batch)),
    ]


def peft_loop(
    place: Place, steps: int, every: int, batch: int, seed: int, enough: float = 2.0
) -> Ran:
    """PEFT's prompt tuning of the same model on the same rows."""
    return place.script(
        "peft_loop",
        *("--model", str(place.weights()), "--data", str(place.data), "--seed", str(seed)),
        *("--steps", str(steps), "--every", str(every), "--batch", str(batch)),
        *("--enough", str(enough)),
    )


def arrival(ran: Ran, events: list[tuple[float, int, float]], enough: float) -> Measure:
    """Seconds until enough, or of the whole run; and where it stood then, in words.

    Args:
        ran: The command.
        events: Seconds, step and accuracy of each validation.
        enough: The accuracy to reach.
    """
    for seconds, step, value in events:
        if value >= enough:
            return Measure({"seconds": seconds}, {"said": f"{value:.3f} at step {step}"})
    _, step, value = events[-1]
    words = f"not yet ({value:.3f} at step {step}), counts in whole"
    return Measure({"seconds": whole(ran)}, {"said": words})


def whole(ran: Ran) -> float:
    """Seconds of a command that ran to its end."""
    assert ran.seconds is not None
    return ran.seconds
