"""Claims and checks on the pages of the book, and the page that lists them all.

Their outputs are drawn as boxes that can be linked to; the directive ``claims`` lists all claims with their evidence
and how often fresh repetitions confirmed them, then all checks. A stored output that does not hold ends the build.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer, load_mime_renders
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from kdutils.evidence.claims import CHECK_MIMETYPE, CLAIM_MIMETYPE, CheckError, ClaimError
from tools import notebooks, replicate

KINDS = {CLAIM_MIMETYPE: "claim", CHECK_MIMETYPE: "check"}
MARKS = {"claim": "✓", "check": "≡ Checked:"}
RAISED = {ClaimError.__name__, CheckError.__name__}

Stated = dict[str, Any]
"""What an output holds (``sentence``, ``evidence``, ``holds``), its ``kind``, and ``anchor``, its place on the page."""


class StatementRenderer:
    """Draws the output of ``claim`` and ``check`` and notes it for the list (a mime renderer plug-in of MyST-NB)."""

    mime_priority_overrides = tuple(("*", mimetype, 1) for mimetype in KINDS)

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """Nodes for a claim or a check, None for any other output."""
        if data.mime_type not in KINDS or inline:
            return None
        env = renderer.renderer.sphinx_env
        noted, kind = statements(env).setdefault(env.docname, []), KINDS[data.mime_type]
        record = json.loads(data.content) if isinstance(data.content, (str, bytes)) else dict(data.content)
        number = 1 + sum(one["kind"] == kind for one in noted)
        stated = {**record, "kind": kind, "anchor": f"{kind}-{number}"}
        noted.append(stated)
        box = nodes.container(classes=[f"kd-{kind}"], ids=[stated["anchor"]])
        box += nodes.paragraph("", "", nodes.strong(text=f"{MARKS[kind]} {stated['sentence']}"))
        box += evidence_of(stated)
        return [box]


def statements(env: BuildEnvironment) -> dict[str, list[Stated]]:
    """Claims and checks by page, kept in Sphinx's environment from one build to the next."""
    if not hasattr(env, "kdutils_claims"):
        env.kdutils_claims = {}  # type: ignore[attr-defined]
    return env.kdutils_claims  # type: ignore[attr-defined]


def evidence_of(stated: Stated) -> list[nodes.paragraph]:
    """One line for each piece of evidence."""
    lines = [re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", line) for line in stated["evidence"]]
    return [nodes.paragraph(text=line, classes=["kd-evidence"]) for line in lines]


class StatementsList(nodes.General, nodes.Element):
    """Stands for the list until every page is read."""


class ClaimsDirective(SphinxDirective):
    """All claims and checks of the book, in reading order, each with its evidence and a link to its place."""

    def run(self) -> list[nodes.Node]:
        """The place where the list will stand."""
        self.env.kdutils_claims_pages = getattr(self.env, "kdutils_claims_pages", set()) | {self.env.docname}  # type: ignore[attr-defined]
        return [StatementsList()]


def require_all_hold(app: Sphinx) -> None:
    """End the build where a chapter was stored with a claim or a check that did not hold, shown or not."""
    for path in notebooks.chapters(Path(app.srcdir)):
        for cell in notebooks.read(path).cells:
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                stated = next((data[mimetype] for mimetype in KINDS if mimetype in data), {"holds": True})
                failed = output.get("ename") in RAISED and "raises-exception" not in notebooks.tags(cell)
                if failed or not stated["holds"]:
                    where = f"{notebooks.label(path, Path(app.srcdir))}, cell {cell.id}"
                    raise SphinxError(f"{where}: {stated.get('sentence') or output['evalue']} (it does not hold)")


def reading_order(env: BuildEnvironment, page: str) -> Iterator[str]:
    """The pages from ``page`` on, as the table of contents has them."""
    yield page
    for below in env.toctree_includes.get(page, []):
        yield from reading_order(env, below)


def repeated(app: Sphinx, page: str, sentence: str) -> list[nodes.paragraph]:
    """A line that says how often fresh repetitions confirmed a claim; none where it was never repeated."""
    root = Path(app.srcdir)
    good, times = replicate.held(root / f"{page}.ipynb", root).get(sentence, (0, 0))
    if not times:
        return []
    mark = "" if good == times else " — does not replicate"
    text = f"Held in {good} of {times} repetitions with fresh seeds{mark}."
    return [nodes.paragraph(text=text, classes=["kd-evidence", "kd-repeated"])]


def listed(app: Sphinx, docname: str, page: str, some: list[Stated]) -> list[nodes.Node]:
    """The statements of a page under its title."""
    uri = app.builder.get_relative_uri(docname, page)
    title = nodes.reference("", app.env.titles[page].astext(), refuri=uri, internal=True)
    items = nodes.definition_list(classes=[f"kd-{some[0]['kind']}s"])
    for stated in some:
        link = nodes.reference("", stated["sentence"], refuri=f"{uri}#{stated['anchor']}", internal=True)
        lines = evidence_of(stated)
        if stated["kind"] == "claim":
            lines += repeated(app, page, stated["sentence"])
        items += nodes.definition_list_item("", nodes.term("", "", link), nodes.definition("", *lines))
    return [nodes.rubric("", "", title), items]


class ClaimLink(nodes.Inline, nodes.TextElement):
    """Stands for a link to a claim until every page is read."""


class ClaimRole(SphinxRole):
    """A link to a claim, named by how its sentence begins: ``{claim}`{} points more <For a small student>```.

    ``{}`` stands for the size of its effect, rounded.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """The place where the link will stand."""
        text, _, start = self.text.rstrip(">").rpartition("<")
        return [ClaimLink("", text.strip() or start, start=start.strip(), where=self.get_location())], []


def _with_number(text: str, stated: Stated, where: str) -> str:
    """The text of a link, with the size of the claim's effect, rounded, in the place of ``{}``."""
    found = re.search(r"[+\-−]?(\d+\.\d+)(?: points)? \[", stated["evidence"][0])
    if "{}" in text and found is None:
        raise SphinxError(f"{where}: the evidence of {stated['sentence']!r} begins with no estimate to fill in")
    return text if found is None else text.replace("{}", str(round(float(found[1]))))


def fill_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Lead every link to its claim; one that is not there, or might be several, ends the build."""
    known = statements(app.env)
    for place in list(doctree.findall(ClaimLink)):
        found = [
            (page, stated)
            for page in reading_order(app.env, app.config.root_doc)
            for stated in known.get(page, ())
            if stated["kind"] == "claim" and stated["sentence"].startswith(place["start"])
        ]
        if len(found) != 1:
            raise SphinxError(f"{place['where']}: {len(found)} claims begin with {place['start']!r}; one is wanted")
        page, stated = found[0]
        text = _with_number(place.astext(), stated, place["where"])
        uri = f"{app.builder.get_relative_uri(docname, page)}#{stated['anchor']}"
        place.replace_self(nodes.reference("", text, refuri=uri, internal=True, reftitle=stated["sentence"]))


def fill_list(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the list of claims and checks in its place."""
    known = statements(app.env)
    pages = [page for page in reading_order(app.env, app.config.root_doc) if known.get(page)]
    for place in list(doctree.findall(StatementsList)):
        content: list[nodes.Node] = []
        for kind in KINDS.values():
            of_kind = {page: [one for one in known[page] if one["kind"] == kind] for page in pages}
            total = sum(map(len, of_kind.values()))
            content.append(nodes.paragraph(text=f"{kind.capitalize()}s in the book: {total}."))
            for page, some in of_kind.items():
                content += listed(app, docname, page, some) if some else []
        place.replace_self(content)


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Before a page is read again."""
    statements(env).pop(docname, None)
    getattr(env, "kdutils_claims_pages", set()).discard(docname)


def rewrite(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """The list is written anew whenever any page was."""
    return sorted(getattr(env, "kdutils_claims_pages", set()))


def setup(app: Sphinx) -> None:
    """Register claims and checks with Sphinx."""
    if StatementRenderer not in load_mime_renders():  # MyST-NB knows plug-ins of installed distributions only
        load_mime_renders().append(StatementRenderer)
    app.add_node(StatementsList)
    app.add_directive("claims", ClaimsDirective)
    app.add_node(ClaimLink)
    app.add_role("claim", ClaimRole())
    app.connect("builder-inited", require_all_hold)
    app.connect("env-purge-doc", forget)
    app.connect("env-updated", rewrite)
    app.connect("doctree-resolved", fill_list)
    app.connect("doctree-resolved", fill_links)
