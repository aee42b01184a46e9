"""The site of these pages, by Sphinx: `make docs` writes docs/_build/html."""

import inspect
import re
import sys
import typing
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

import lightning_prompts  # noqa: E402 - from the folder above

project = "lightning-prompts"
author = "The lightning-prompts authors"
version = release = lightning_prompts.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
exclude_patterns = ["_build"]
myst_heading_anchors = 4

# Docstrings write code in single backticks, as comments do.
default_role = "literal"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
maximum_signature_line_length = 70
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_dark_style = "github-dark"

# Pages that stand beside docs/ in the repository, where people look for them.
ABOVE = {"index": "README.md", "changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
# What Lightning calls by itself tells a reader of the API nothing.
LIGHTNING = (Callback, LightningDataModule, LightningModule, ModelParallelStrategy)
HOOKS = {name for kind in LIGHTNING for name in dir(kind)}
NAMES = {"slug", "label", "soft_in_use", "differentiates"}  # of a tuner: docs/extend.md


def groups() -> dict[str, list[str]]:
    """The public names as the table of docs/python.md groups them."""
    table = (DOCS / "python.md").read_text(encoding="utf-8").partition("## Public names")[2]
    rows = re.findall(r"^\| (\w[^|]*) \| (.+) \|$", table, flags=re.MULTILINE)
    return {title: re.findall(r"`(\w+)`", names) for title, names in rows}


def write_api(folder: Path) -> None:
    """Write a page for each group of public names; autodoc fills it from their docstrings."""
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    pages = {group.replace(" ", "_"): (group, names) for group, names in groups().items()}
    for page, (group, names) in pages.items():
        lines = _title(group[0].upper() + group[1:])
        for name in names:
            thing: Any = getattr(lightning_prompts, name)
            kind = "class" if inspect.isclass(thing) else "data"
            kind = "function" if inspect.isfunction(thing) else kind
            lines += [f".. auto{kind}:: lightning_prompts.{name}"]
            lines += ["   :members:", "   :show-inheritance:"] if kind == "class" else []
            lines += [""]
        (folder / f"{page}.rst").write_text("\n".join(lines), encoding="utf-8")
    index = [*_title("Python API"), ".. toctree::", "   :maxdepth: 2", ""]
    index += [f"   {page}" for page in pages]
    (folder / "index.rst").write_text("\n".join([*index, ""]), encoding="utf-8")


def _title(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def navigation() -> str:
    """The lists of docs/README.md, as the site's navigation."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    found = []
    for part in re.split(r"^\*\*", text, flags=re.MULTILINE)[1:]:
        caption, _, pages = part.partition("**")
        names = [_page(path) for path in re.findall(r"^- \[[^]]+\]\(([^)]+)\)", pages, re.M)]
        entries = "\n".join(map(_entry, names))
        found.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n")
    return "\n".join(found)


def _entry(page: str) -> str:
    """A line of a toctree: short, and with its own title where it stands in a folder."""
    name = page.removesuffix(".md")
    return name if "/" in name else f"{name.capitalize().replace('_', ' ')} <{name}>"


def _page(path: str) -> str:
    """Where a link of a page leads on the site."""
    above = {name: f"{page}.md" for page, name in ABOVE.items()}
    above["python.md#public-names"] = "api/index"
    return above.get(path.removeprefix("../"), path)


def put_in_place(app: Any, name: str, source: list[str]) -> None:
    """Read the pages of ABOVE from there, and lead links to them to where the site has them."""
    text = source[0]
    if name in ABOVE:
        file = DOCS.parent / ABOVE[name]
        app.env.note_dependency(str(file))
        text = file.read_text(encoding="utf-8").replace("](docs/", "](")
    text = re.sub(r"(?<=\]\()[^)#]+", lambda path: _page(path[0]), text)
    if name == "index":
        app.env.note_dependency(str(DOCS / "README.md"))
        text += "\n" + navigation()
    if name == "README":  # the navigation has its pages, not itself
        text = "---\norphan: true\n---\n" + text
    source[0] = text


class Unwritten:
    """A default that Python has no text for, a function say."""

    def __repr__(self) -> str:
        return "..."


def signature(app: Any, what: str, name: str, thing: Any, *_: Any) -> tuple[str, str] | None:
    """Arguments of a constructor, a function or a method, without the ranges of their types.

    Of a class whose arguments are checked in `__new__` autodoc would show those of that.
    """
    # Imported here, so that the tests of the navigation need no Sphinx.
    from sphinx.util.inspect import stringify_signature
    from sphinx.util.typing import stringify_annotation

    made = thing.__init__ if what == "class" else thing
    try:
        found, hints = inspect.signature(made), typing.get_type_hints(made)
    except (TypeError, ValueError, NameError):  # of C, or with names that only a type checker knows
        return None
    arguments = []
    for given in found.parameters.values():
        if given.name in ("self", "cls"):
            continue
        if given.default is not given.empty and repr(given.default).startswith("<"):
            given = given.replace(default=Unwritten())
        arguments.append(given.replace(annotation=hints.get(given.name, given.empty)))
    shown = stringify_signature(
        inspect.Signature(arguments), show_return_annotation=False, unqualified_typehints=True
    )
    returns = hints.get("return") if what != "class" else None
    return shown, "" if returns is None else stringify_annotation(returns, "smart")


def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out what Lightning calls, and what only reports read."""
    return True if name in HOOKS | NAMES else None


def docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Write what napoleon would misread: `**kwargs` beside others, a colon in a sentence."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"^( *)(\w+, )+(\*\*kwargs: )", r"\1\3", line)
        if what in ("attribute", "property", "data"):
            lines[i] = line.replace(": ", "\\: ")


def setup(app: Any) -> None:
    """Tell Sphinx of the functions above."""
    write_api(DOCS / "api")
    app.connect("source-read", put_in_place)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", docstring, priority=400)  # before napoleon
