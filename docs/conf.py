"""Settings of the documentation's site; ``make docs`` builds it.

The source directory is the repository, not this folder: pages, the READMEs of the examples and the
model cards link to one another and to source files by relative paths, which hold on the site as
they hold in a clone, and a link that leads nowhere fails the build.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs.reference import generate  # noqa: E402  (after the path that it is found on)

project = "retrograde"
html_title = "retrograde"
html_show_copyright = False
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "examples/**", "assets/**"]
exclude_patterns = [".*", "build", "data", "runs", "docs/README.md", "**/.ipynb_checkpoints"]
html_extra_path = ["redirect"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
]
html_theme = "furo"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # an attribute x of several classes
nb_execution_mode = "off"  # a slow test executes the notebooks

napoleon_use_ivar = True  # attributes are described once, with their class
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"


def list_subfolders(app: Sphinx, docname: str, source: list[str]) -> None:
    """The README of a folder leads to those of its folders, on the site alone."""
    if docname in ("examples/README", "assets/README"):
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n*/README\n```\n"


def skip_foreign(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Leave out what matplotlib adds to its subclasses."""
    return True if str(getattr(value, "__module__", "")).startswith("matplotlib") else None


def public_target(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """The public entry of a name that a docstring refers to by the module that it lives in."""
    if node.get("refdomain") != "py":
        return None
    names = node["reftarget"].rpartition(".")[2]
    found = [f"{package}.{names}" for package in generate.PACKAGES]
    known = [name for name in found if name in env.domains.python_domain.objects]
    if len(known) != 1:
        return None
    entry = env.domains.python_domain.objects[known[0]]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content)


def setup(app: Sphinx) -> None:
    """Write the pages of the reference before Sphinx looks for pages."""
    app.connect("builder-inited", lambda app: generate.write(Path(app.confdir) / "reference"))
    app.connect("source-read", list_subfolders)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("missing-reference", public_target)
