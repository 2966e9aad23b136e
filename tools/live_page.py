"""Live figures on the pages of the book: the output of the cell becomes an element that ``live.js`` fills."""

import json
from typing import Any

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer, load_mime_renders
from sphinx.application import Sphinx

from kdutils.live import LIVE_MIMETYPE


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


def element(record: dict[str, Any]) -> str:
    """The HTML of a figure; nothing in its numbers can end the script that holds them."""
    content = json.dumps(record["content"], ensure_ascii=False).replace("<", "\\u003c")
    return f'<kd-live kind="{record["kind"]}"><script type="application/json">{content}</script></kd-live>'


def setup(app: Sphinx) -> None:
    """Register live figures with Sphinx."""
    if LiveRenderer not in load_mime_renders():
        load_mime_renders().append(LiveRenderer)
    app.add_js_file("live.js")
