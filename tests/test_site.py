"""The site is whole: the parser's options, every page, nothing fetched when it is read."""

import doctest
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType

import matplotlib
import pytest
import yaml

import lightning_prompts
from lightning_prompts.cli.parser import LINKED
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def module(name: str) -> ModuleType:
    """One of the files in docs/, which are no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


# ---- options


@pytest.fixture(scope="module")
def options() -> ModuleType:
    return module("options")


def test_the_page_of_options_is_the_parser_s(options: ModuleType):
    written = (DOCS / "options.md").read_text(encoding="utf-8")
    assert written == options.page(), "run: python docs/options.py"


@pytest.mark.parametrize("tuner", ["soft", "pez", "rlprompt", "guided_search", "manual"])
def test_every_option_of_fit_is_told(tuner: str, options: ModuleType):
    """What `--print_config` knows is on the page, but for what another option decides."""
    from lightning_prompts.studies.needs import OnlyParses

    files = ["--config", f"configs/tuner/{tuner}.yaml", "--config", "configs/task/demo.yaml"]
    config = OnlyParses(["fit", *files], run=False).config["fit"].as_dict()
    blocks = {"model": config["model"]["init_args"], "data": config["data"]["init_args"]}
    blocks |= {name: block for name, block in config.items() if name not in ("model", "data")}
    text = options.page()
    names = [
        f"{block}.{key}" if isinstance(content, dict) else block
        for block, content in blocks.items()
        for key in (content if isinstance(content, dict) else [""])
    ]
    names = [name for name in names if not name.startswith("__")]
    assert len(names) > 60
    for name in names:
        assert name in LINKED or f"| `--{name}` |" in text, name


def test_types_and_sentences_are_in_words(options: ModuleType):
    tried = doctest.testmod(options)
    assert (tried.failed, tried.attempted) == (0, 3)


# ---- what runs, figures


def test_the_page_of_what_runs_is_of_the_tests_tables():
    written = (DOCS / "tested.md").read_text(encoding="utf-8")
    assert written == module("tested").page(), "run: python docs/tested.py"


def test_the_path_of_the_data_is_drawn_by_its_script():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if f"matplotlib=={matplotlib.__version__}" not in pinned:
        pytest.skip("the figure is of the matplotlib of constraints.txt")
    drawn = (DOCS / "figures" / "data_path.svg").read_bytes()
    assert drawn == module("data_path").svg(), "run: python docs/data_path.py"


# ---- the site


def test_the_navigation_is_the_list_of_pages():
    text = module("conf").navigation()
    named = set(re.findall(r"^(?:[\w ]+ <)?([\w/]+)>?$", text, flags=re.MULTILINE))
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert named == pages - {"README", "index"} | {"api/index"}


def test_every_public_name_has_a_page_of_the_api(tmp_path: Path):
    module("conf").write_api(tmp_path)
    told = "\n".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rst"))
    names = re.findall(r"^\.\. auto\w+:: lightning_prompts\.(\w+)$", told, flags=re.MULTILINE)
    assert sorted(names) == sorted(lightning_prompts.__all__)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path):
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-E", "-W", "-q", "-b", "html"]
    folders = ["-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")]
    built = subprocess.run([*command, *folders], capture_output=True, text=True, timeout=PATIENCE)
    assert built.returncode == 0, built.stderr[-2000:]
    pages = list((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"(?:https?:)?//", html
        )
    for style in (tmp_path / "html" / "_static").rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text())


def test_the_curve_over_the_bound_is_of_the_numbers_on_its_page():
    runs = json.loads((DOCS / "bounded_curve.json").read_text(encoding="utf-8"))["runs"]
    page = (DOCS / "tradeoff.md").read_text(encoding="utf-8")
    expected, means = [], {"test": [], "validation": []}
    for epsilon in (0.0, 0.1, 0.3, 1.0, None):
        own = [run for run in runs if run["epsilon"] == epsilon]
        row = [{0.0: "0, the text", None: "none"}.get(epsilon, f"{epsilon}")]
        for split, of_split in means.items():
            values = [run[split] for run in own]
            of_split.append(fmean(values))
            # 4.303 is the 97.5 % quantile of t with two degrees of freedom.
            half = f" ± {4.303 * stdev(values) / 3**0.5:.3f}" if len(own) == 3 else ""
            row.append(f"{of_split[-1]:.3f}{half}")
        expected.append(row)
    lines = re.findall(
        r"^\| (0, the text|none|[\d.]+) \| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE
    )
    found = [[bound, *(re.sub(r" \[.*", "", value) for value in rest)] for bound, *rest in lines]
    assert found[:5] == expected
    (axes,) = module("bounded_curve").figure().axes
    drawn = {line.get_label(): list(map(float, line.get_ydata())) for line in axes.get_lines()}
    assert drawn["1,821 test rows"] == means["test"]
    assert drawn["872 validation rows"] == means["validation"]
    for split in means:
        assert [run[split] for run in runs] in drawn.values(), "a dot a run"


def test_the_other_texts_of_the_bound_are_those_of_the_page_and_the_figure():
    others = json.loads((DOCS / "bounded_curve.json").read_text(encoding="utf-8"))["others"]
    page = (DOCS / "tradeoff.md").read_text(encoding="utf-8")
    rows: dict[str, list[str]] = {}
    drawn: dict[str, list[float]] = {}
    for run in others:
        if run["epsilon"] == 0.03:  # of Gemma alone, in the words below the table
            assert f"ε = 0.03 has {run['test']:.3f}" in page
            continue
        start = f"| `{run['text']}` | {run['model']}, {run['place']} |"
        rows.setdefault(start, []).append(f" {run['test']:.3f} / {run['own_median']:.3f} |")
        name = f"“{run['text'].strip()}”, {run['model']}, prompt {run['place']}"
        drawn.setdefault(name, []).append(run["test"])
    assert len(rows) == 4
    for start, values in rows.items():
        assert f"{start}{''.join(values)}\n" in page
    (axes,) = module("bounded_curve").texts().axes
    lines = {line.get_label(): list(map(float, line.get_ydata())) for line in axes.get_lines()}
    assert lines.items() >= drawn.items()


# ---- what stands beside it


def test_the_citation_names_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["type"], cited["title"]) == ("software", "lightning-prompts")
    assert cited["version"] == lightning_prompts.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, flags=re.MULTILINE)[0] == cited["version"]


@pytest.mark.parametrize("form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")))
def test_forms_have_what_a_form_needs(form: Path):
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} == content.keys()
    ids = [part["id"] for part in content["body"]]
    assert len(set(ids)) == len(ids)
    assert all(part["attributes"]["label"] for part in content["body"])
