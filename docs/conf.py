"""How Sphinx builds this folder into a site: ``make docs``. The pages themselves are plain Markdown.

Four things are mended on the way, so that neither pages nor code need a syntax for it: links that lead out of this
folder, aliases of types, links of annotations such as ``bytes``, and names that stand without their module.
"""

import builtins
import os
import re
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from docutils.nodes import Element, document
from sphinx.addnodes import pending_xref, pending_xref_condition
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import stringify_annotation

from trichannels import __version__, events

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "trichannels"
author = "the trichannels contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!trichannels\.).*\..*|[PT]|typing.*"),  # what others define: there is no network in a build
    ("py:class", r".*\[.*|AbstractAsyncContextManager|WebSocketConnection"),  # theirs, too: pieces, and bare names
    ("py:class", r"trichannels\..*\.[PT]"),  # type variables
    ("py:class", r"trichannels\.testing\.contract\..*"),  # the parts of LayerContract
    ("py:mod", r"trichannels\.(layers\.host|protocol|revocation)"),  # where a docstring says what is done there
    # Internal, and in a signature all the same: bases, and what objects that nobody makes by hand are made of.
    ("py:(class|func)", r"trichannels\.security\.origins\..*|trichannels\.patterns\.Pattern"),
    ("py:class", r"trichannels\.(routing\.RouteShape|layers\.boarded\.BoardedLayer|layers\.redis\.hub\.Hub)"),
    ("py:class", r"trichannels\.(server\.(shared\.Shared|listening\.Listener)|bridge\.(lane\.Lane|home\.Home))"),
    ("py:class", r"trichannels\.generic\.websocket\._Connecting"),
]

myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"trichannels {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False

# The modules for Django can be imported in a project only: this is the least one.
settings.configure(
    INSTALLED_APPS=[
        "trichannels.django",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
    ]
)
django.setup()

# Pages of the site that are files of the repository's root.
FROM_THE_ROOT = {"start": "README.md", "changes": "CHANGELOG.md"}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def take_from_the_root(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the README and the changelog in the place of their pages, and lead links to where things are in the site."""
    home = (HERE / page).parent
    if page in FROM_THE_ROOT:
        source[0] = (ROOT / FROM_THE_ROOT[page]).read_text(encoding="utf-8")
        home = ROOT
    pages = {ROOT / name: HERE / f"{inner}.md" for inner, name in FROM_THE_ROOT.items()}

    def led(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        target = (home / path).resolve()
        if target.is_dir():  # only a code host can show a folder
            return f"{text} (`{target.relative_to(ROOT)}/`)"
        target = pages.get(target, target)
        return f"[{text}]({os.path.relpath(target, (HERE / page).parent)}{anchor})"

    source[0] = LINK.sub(led, source[0])


# What Python has expanded, and readers know by its name; the longest first, for it holds the others.
ALIASES = {
    stringify_annotation(getattr(events, name), "smart"): f"~trichannels.events.{name}"
    for name in ("ASGIApp", "HeaderInput", "Receive", "Send")
}


def name_aliases(app: Sphinx, what: str, name: str, thing: Any, options: Any, *signature: str | None) -> Any:
    """Write an alias such as ``ASGIApp`` by its name, in the arguments and in what is returned."""
    parts = list(signature)
    for spelt, alias in sorted(ALIASES.items(), key=lambda item: -len(item[0])):
        parts = [part and part.replace(spelt, alias) for part in parts]
    return tuple(parts)


def leave_builtins_alone(app: Sphinx, page: document) -> None:
    """Take the link from an annotation such as ``bytes``, which Sphinx takes for an attribute of that name."""
    for link in list(page.findall(pending_xref)):
        if link.get("refdomain") == "py" and hasattr(builtins, link["reftarget"]):
            ways = list(link.findall(pending_xref_condition))
            shown = [way for way in ways if way.get("condition") == "resolved"]
            link.replace_self([part for way in shown for part in way.children] if ways else link.children)


def find_by_last_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Resolve a name such as ``ConfigError``, which a docstring may use without its module, if there is only one.

    The same goes for functions under the name of the module that defines them: Sphinx knows that of classes only.
    """
    if node.get("refdomain") != "py":
        return None
    python: Any = env.domains["py"]
    kind, name = node["reftype"], node["reftarget"].lstrip(".")
    if kind == "func":
        name = name.rpartition(".")[2]
    kinds = python.objtypes_for_role(kind) or ()
    found = {
        entry.node_id: full
        for full, entry in python.objects.items()
        if full.endswith(f".{name}") and entry.objtype in kinds
    }
    if len(found) != 1:
        return None
    (full,) = found.values()
    return python.resolve_xref(env, node["refdoc"], app.builder, kind, full, node, text)


def setup(app: Sphinx) -> None:
    """Register the four."""
    app.connect("source-read", take_from_the_root)
    app.connect("autodoc-process-signature", name_aliases)
    app.connect("doctree-read", leave_builtins_alone)
    app.connect("missing-reference", find_by_last_name)
