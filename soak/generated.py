"""Generated mistakes, each run for real: refused in a sentence, or done as asked."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings

from lightning_prompts.files.text import shorten
from lightning_prompts.report.text import markdown
from soak.case import MISTAKE, Case, Outcome, environment, run_case
from soak.mutations import configurations, data_files, leaves, of_configuration, of_data
from soak.world import World, damaged, make_world

EXAMPLES = 260  # of each kind
# What asks the run to choose: what it chose is saved.
DECIDED = ((("seed_everything",), True), (("trainer", "precision"), None))
drawn_anew = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def main(folder: Path) -> str:
    """Run `EXAMPLES` of each kind.

    Args:
        folder: Empty.

    Returns:
        The section in Markdown.
    """
    os.environ.update(environment(folder))
    world = make_world(folder)
    before = world.digests()
    seen: dict[str, list[Outcome]] = {"configurations": [], "data files": []}
    wrong: list[str] = []

    def run(kind: str, case: Case, asked: Mapping[str, Any] | None) -> None:
        here = folder / "cases" / f"{kind}{len(seen[kind])}".replace(" ", "")
        outcome = run_case(case, world, here, fresh=False)
        seen[kind].append(outcome)
        for fault in faults(outcome, here, asked, world):
            wrong.append(f"{kind} {len(seen[kind])}: {fault} ({shorten(outcome.message, 300)})")

    @settings(drawn_anew, max_examples=EXAMPLES)
    @given(configurations())
    def try_configurations(config: dict[str, Any]) -> None:
        run("configurations", of_configuration(config), config)

    @settings(drawn_anew, max_examples=EXAMPLES)
    @given(data_files())
    def try_data(file: tuple[str, bytes]) -> None:
        run("data files", of_data(*file), None)

    try_configurations()
    try_data()
    harmed = damaged(before, world.digests())
    lines = []
    for kind, outcomes in seen.items():
        count = Counter(outcome.status for outcome in outcomes)
        lines.append(
            f"| {kind} | {len(outcomes)} | {count[MISTAKE]} | {count[0]} | "
            f"{max(outcome.seconds for outcome in outcomes):.1f} |"
        )
    head = ["| generated | cases | refused | ran | longest, s |", "| --- | --- | --- | --- | --- |"]
    said = "".join(f"\n- {markdown(one)}" for one in wrong)
    return (
        "\n".join([*head, *lines])
        + f"\n\nNot as they should be (a traceback, a hang, another exit status, no sentence, or "
        f"an option that the saved configuration does not have as it was asked for): {len(wrong)}. "
        f"Files harmed: {len(harmed)}.{said}"
    )


def faults(
    outcome: Outcome, here: Path, asked: Mapping[str, Any] | None, world: World
) -> list[str]:
    """What is wrong with an outcome: both 0 and 2 may be right, the first only as asked."""
    if outcome.status == 0:
        found = ["traceback"] if "Traceback" in outcome.output else []
        return found + ([] if asked is None else ignored(asked, here, world))
    return outcome.faults


def ignored(asked: Mapping[str, Any], here: Path, world: World) -> list[str]:
    """Options that the configuration saved by a run does not have as they were asked for."""
    saved_files = sorted(here.rglob("config.yaml"))
    if not saved_files:
        return ["no configuration was saved"]
    saved = yaml.safe_load(saved_files[0].read_text(encoding="utf-8"))
    found = []
    for path, value in leaves(asked):
        if (path, value) in DECIDED:
            continue
        have: Any = saved
        for key in path:
            have = have.get(key, ...) if isinstance(have, Mapping) else ...
        wanted = world.filled(value, here) if isinstance(value, str) else value
        if not same(wanted, have):
            found.append(f"{'.'.join(path)} was asked as {wanted!r} and is {have!r}")
    return found


def same(asked: Any, have: Any) -> bool:
    """Whether two values mean the same option: `1` and `1.0` and `"1"` do."""
    if asked == have or (asked is None and have is ...):
        return True
    if asked == {}:
        return isinstance(have, Mapping | None)
    if isinstance(asked, str) and isinstance(have, str):  # a class may be named by its last part
        return asked != "" and have.rpartition(".")[2] == asked.rpartition(".")[2]
    try:
        return math.isclose(float(asked), float(have))
    except (TypeError, ValueError):
        return isinstance(asked, str) and json.dumps(have) == asked
