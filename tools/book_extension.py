"""What the book asks of Sphinx beyond its off-the-shelf extensions.

- claims and checks: see :mod:`tools.claims_page`;
- API reference: a page for each module, made from its docstrings; ``kdutils.distill.SoftTargets`` links to the page of
  the module that defines it, and a type of another library is plain text (its page is on the network, which a build
  must not need);
- address: the links of the theme and the set-up cells follow :mod:`tools.address`;
- downloads: the button of each chapter gives the notebook in the form made for Colab;
- offline: what the theme would fetch from the network is left out.
"""

import importlib
import re
import urllib.parse
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective

from tools import claims_page, colab, live_page, notebooks
from tools.address import PLACEHOLDER, ROOT, repository
from tools.built import Book

TYPES_ONLY = {"Figure", "Image.Image"}
"""Names of other libraries that our modules import for type checkers only, so that they cannot be looked up."""

# --------------------------------------------------------------------------------------------------- API reference


def public_modules(package: Path = ROOT / "kdutils") -> list[str]:
    """The modules whose path has no private part, by dotted name, packages before what is in them."""
    paths = [path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")]
    dotted = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    return sorted(name for name in dotted if not any(part.startswith("_") for part in name.split(".")))


def write_module_pages(app: Sphinx, config: Config) -> None:
    """One page for each module, made anew at each build; git ignores them."""
    folder = Path(app.srcdir) / "appendix" / "api"
    modules = public_modules()
    pages = {f"{name}.md": f"# `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in modules}
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.iterdir()} - pages.keys():
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # an untouched page is not read again
            path.write_text(text, encoding="utf-8")


def summary(module: str) -> str:
    """The first line of a module's docstring."""
    return (importlib.import_module(module).__doc__ or "").strip().partition("\n")[0]


class ModulesDirective(SphinxDirective):
    """A list of the modules, each with its first line."""

    def run(self) -> list[nodes.Node]:
        """One line for each module."""
        lines = [f"{{py:mod}}`{name}`\n: {summary(name)}\n" for name in public_modules()]
        return self.parse_text_to_nodes("\n".join(lines))


def list_exports(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A package's page lists the names that it passes on from its modules, with their summaries."""
    if what == "module" and hasattr(obj, "__path__") and getattr(obj, "__all__", ()):
        lines += ["", ".. autosummary::", "   :nosignatures:", "", *(f"   {public}" for public in obj.__all__), ""]


def skip_exports(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """A name that a module passes on is described where it is defined, and only there."""
    home = getattr(obj, "__module__", None) or ""
    page = app.env.temp_data.get("autodoc:module")
    return True if what == "module" and home.startswith("kdutils") and home != page else None


def keep_colons(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Napoleon takes what stands before a colon in the first line of a property for its type; ours are annotated."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # an empty comment


def leave_out_object(app: Sphinx, domain: str, objtype: str, content: addnodes.desc_content) -> None:
    """That a class derives from ``object`` is no news."""
    if objtype == "class" and content.children and content[0].astext() == "Bases: object":
        del content[0]


def find_object(name: str) -> Any:
    """What a dotted name stands for, or None."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except (ImportError, ValueError):
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found
    return None


def alias_exports(app: Sphinx, env: BuildEnvironment) -> None:
    """Let ``kdutils.distill.SoftTargets`` lead to where ``kdutils.distill.soft_targets.SoftTargets`` is described."""
    known = env.get_domain("py").objects  # type: ignore[attr-defined]
    for package in public_modules():
        for public in getattr(importlib.import_module(package), "__all__", ()):
            short, found = f"{package}.{public}", find_object(f"{package}.{public}")
            if isinstance(found, ModuleType):  # it has a page under its own name
                continue
            for home in [name for name in known if name.endswith(f".{public}") and find_object(name) is found]:
                for name in [name for name in known if name == home or name.startswith(f"{home}.")]:
                    known.setdefault(short + name.removeprefix(home), known[name]._replace(aliased=True))


def resolve_python_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, contnode: nodes.Element
) -> nodes.Element | None:
    """Resolve a name that stands in a signature as its module imported it.

    One of ours leads to its description. One of another library, if it really exists, becomes plain text. Anything else
    stays unresolved, which fails the build.
    """
    if node.get("refdomain") != "py":
        return None
    for name in (node["reftarget"], f"{node.get('py:module')}.{node['reftarget']}"):
        if (found := find_object(name)) is None:
            continue
        home = getattr(found, "__module__", None) or ""
        if not home.startswith("kdutils") or isinstance(found, (TypeVar, ParamSpec)):
            return contnode
        place = f"{home}.{getattr(found, '__qualname__', '')}"
        return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", place, node, contnode)
    return contnode if node["reftarget"] in TYPES_ONLY else None


# ------------------------------------------------------------------------------------- address, downloads, offline


def apply_address(app: Sphinx, config: Config) -> None:
    """The theme's links, and ``{{ repository }}`` on the pages, follow the address of the repository."""
    address = repository()
    theme = config.html_theme_options
    theme["repository_url"] = address
    host = urllib.parse.urlsplit(address).hostname or ""
    theme["repository_provider"] = next((name for name in ("gitlab", "bitbucket") if name in host), "github")
    if host != "github.com":
        theme.pop("launch_buttons", None)  # Colab opens notebooks from there only
    config.myst_substitutions["repository"] = address


def fill_address(app: Sphinx, page: str, source: list[str]) -> None:
    """The set-up cell shows, and the reader copies, the real address where it is known."""
    source[0] = source[0].replace(PLACEHOLDER, repository())


def leave_out_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Jupyter Book always loads the extension that runs code through a service on the network; not used here."""
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if "thebe" not in f"{file} {getattr(file, 'attributes', '')}"]


def leave_out_preloading(app: Sphinx, exception: Exception | None) -> None:
    """The theme preloads its fonts, which a browser forbids, with an error, to pages opened from disk."""
    if exception is None:
        for path in Path(app.outdir).rglob("*.html"):
            page = path.read_text(encoding="utf-8")
            without = re.sub(r'<link rel="preload" as="font"[^>]*>\n?', "", page)
            if without != page:
                path.write_text(without, encoding="utf-8")


def put_downloads(app: Sphinx, exception: Exception | None) -> None:
    """Replace the notebooks behind the download buttons by their Colab form."""
    if exception is not None:
        return
    root, out = Path(app.srcdir), Path(app.outdir)
    book = Book(root, html=out)
    for path in notebooks.chapters(root):
        try:
            notebooks.write(out / "_sources" / path.relative_to(root), colab.convert(path, book))
        except colab.MarkupError as error:
            raise SphinxError(str(error)) from error


def with_pages(app: Sphinx, name: str, described: Any, options: Any, bases: list[Any]) -> None:
    """A base in a module without a page, whose name begins with an underscore, gives way to its own base."""
    for place, base in enumerate(bases):
        if isinstance(base, type):
            bases[place] = next(one for one in base.__mro__ if "._" not in one.__module__)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything with Sphinx."""
    claims_page.setup(app)
    live_page.setup(app)
    app.add_directive("modules", ModulesDirective)
    app.connect("config-inited", write_module_pages, priority=100)  # before the table of contents is read
    app.connect("config-inited", apply_address)
    app.connect("source-read", fill_address)
    app.connect("env-updated", alias_exports)
    app.connect("autodoc-skip-member", skip_exports)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before Napoleon
    app.connect("autodoc-process-docstring", list_exports)
    app.connect("autodoc-process-bases", with_pages)
    app.connect("object-description-transform", leave_out_object)
    app.connect("missing-reference", resolve_python_name)
    app.connect("html-page-context", leave_out_thebe, priority=900)
    app.connect("build-finished", leave_out_preloading)
    app.connect("build-finished", put_downloads)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
