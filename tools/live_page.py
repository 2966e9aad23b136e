"""Live figures on the pages of the book: the output of a cell becomes an element that ``live.js`` fills.

Sentences with numbers are here as well: what another language would need of them is left out of the page.
"""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer, load_mime_renders
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kdutils.evidence.say import SAY_MIMETYPE
from kdutils.live import LIVE_MIMETYPE
from tools import notebooks
from tools.address import ROOT

STATIC = ROOT / "tools" / "static"


class LiveRenderer:
    """Draws the output of :mod:`kdutils.live` (a mime renderer plug-in of MyST-NB)."""

    mime_priority_overrides = (("*", LIVE_MIMETYPE, 1),)

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """The element with its numbers; None for any other output."""
        if data.mime_type != LIVE_MIMETYPE or inline:
            return None
        record = json.loads(data.content) if isinstance(data.content, (str, bytes)) else data.content
        return [nodes.raw("", element(record), format="html")]


class SayRenderer:
    """Leaves out the record of a sentence of :func:`kdutils.say`: the page shows its text, which is beside it."""

    mime_priority_overrides = (("*", SAY_MIMETYPE, 1000),)

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """Nothing for the record; None for any other output."""
        return [] if data.mime_type == SAY_MIMETYPE else None


def element(record: dict[str, Any]) -> str:
    """The HTML of a figure; nothing in its numbers can end the script that holds them."""
    content = json.dumps(record["content"], ensure_ascii=False).replace("<", "\\u003c")
    return f'<kd-live kind="{record["kind"]}"><script type="application/json">{content}</script></kd-live>'


class LiveFigure(SphinxDirective):
    """``{live-figure} chapters/part/topic kind``: the figure of a chapter, as it is stored there, on another page."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The element; an error unless the chapter has exactly one figure of that kind."""
        chapter, kind = self.arguments
        path = Path(self.env.srcdir, f"{chapter}.ipynb")
        if not path.is_file():
            raise self.error(f"there is no chapter {chapter!r}")
        self.env.note_dependency(str(path))
        outputs = [output for cell in notebooks.read(path).cells for output in cell.get("outputs", ())]
        records = [output.data[LIVE_MIMETYPE] for output in outputs if LIVE_MIMETYPE in output.get("data", {})]
        found = [record for record in records if record["kind"] == kind]
        if len(found) != 1:
            raise self.error(f"{chapter} has {len(found)} live figures of kind {kind!r}; one is wanted")
        return [nodes.raw("", element(found[0]), format="html")]


def add_scripts(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give a page the scripts of the kinds on it that have one of their own, ``live_<kind>.js``, after ``live.js``."""
    texts = (node.astext() for node in doctree.findall(nodes.raw)) if doctree else ()
    for kind in sorted({kind for text in texts for kind in re.findall(r'<kd-live kind="(\w+)">', text)}):
        if (STATIC / f"live_{kind}.js").exists():
            app.add_js_file(f"live_{kind}.js", priority=501)


def setup(app: Sphinx) -> None:
    """Register live figures with Sphinx."""
    app.add_directive("live-figure", LiveFigure)
    for renderer in (LiveRenderer, SayRenderer):
        if renderer not in load_mime_renders():
            load_mime_renders().append(renderer)
    app.add_js_file("live.js")
    app.connect("html-page-context", add_scripts)
