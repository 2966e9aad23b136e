"""What the built book knows: numbers, titles, addresses and citations, for forms of the book other than its HTML."""

import posixpath
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from bs4 import BeautifulSoup
from docutils.nodes import make_id
from pybtex.database import Entry, parse_file
from sphinx.util.inventory import InventoryFile

from tools.address import COLAB_BRANCH, PLACEHOLDER, ROOT, repository


class Book:
    """The book as it was last built.

    Args:
        root: the folder of ``references.bib`` and of the chapters.
        html: the built pages; None for those that `make book` leaves.
        address: of the repository. Links lead to the published pages where it is on github.com; else there are none.

    Raises:
        FileNotFoundError: if the book is not built.
    """

    def __init__(self, root: Path = ROOT, html: Path | None = None, address: str | None = None) -> None:
        self.root, self.html, self.address = root, html or root / "_build" / "html", address or repository()
        if not (self.html / "objects.inv").exists():
            raise FileNotFoundError("the built book is wanted, for its numbers and addresses; run `make book` first")
        with open(self.html / "objects.inv", "rb") as file:
            self.inventory = InventoryFile.load(file, "", posixpath.join)
        where = urlsplit(self.address)
        published = where.netloc == "github.com" and self.address != PLACEHOLDER
        self.owner, self.name = where.path.strip("/").split("/") if published else ("", "")

    @cached_property
    def numbers(self) -> dict[str, str]:
        """What the pages show, such as "(2.1)", "Fig. 2.1" and "Exercise 2.1", by ``page.html#anchor``."""
        found = {}
        for _, _, page, _ in self.inventory["std:doc"].values():
            soup = BeautifulSoup((self.html / page).read_text(encoding="utf-8"), "html.parser")
            for number in soup.select("[id] .eqno, [id] .caption-number"):
                owner = number.find_parent(id=True)
                if owner is not None:
                    found[f"{page}#{owner['id']}"] = next(number.stripped_strings)
        return found

    @cached_property
    def bibliography(self) -> dict[str, Entry]:
        """The entries of ``references.bib`` by key."""
        return parse_file(str(self.root / "references.bib"), "bibtex").entries

    def find(self, kind: str, name: str) -> tuple[str, str]:
        """(address below the HTML's root, title) of a "std:label", "std:doc" or "std:term".

        Raises:
            ValueError: if the built book has none of that name.
        """
        for key in (name, name.lower()):
            if key in self.inventory.get(kind, {}):
                _, _, uri, title = self.inventory[kind][key]
                return uri, title
        raise ValueError(f"{name!r} is not in the built book; mend the name, or run `make execute` and `make book`")

    def api(self, name: str, *, module: bool) -> str | None:
        """The address below the HTML's root of a Python object; None for one of another library, which has no page.

        A name that a package passes on, such as ``kdutils.fit``, leads to where it is defined.
        """
        kinds = [kind for kind in self.inventory if kind.startswith("py:") and (kind == "py:module") == module]
        known = {key: entry[2] for kind in kinds for key, entry in self.inventory[kind].items()}
        package, _, last = name.rpartition(".")
        passed_on = [key for key in known if key.startswith(f"{package}.") and key.endswith(f".{last}")]
        return known.get(name) or known.get(min(passed_on, key=len, default=""))

    def equation(self, label: str) -> str:
        """The address below the HTML's root of a labeled equation.

        Raises:
            ValueError: if the built book has no such equation.
        """
        anchor = f"#{make_id(f'equation-{label}')}"
        for uri in self.numbers:
            if uri.endswith(anchor):
                return uri
        raise ValueError(f"the equation {label!r} is not in the built book; mend the label, or run `make book`")

    def number(self, label: str) -> str:
        """The number of a figure or an exercise.

        Raises:
            ValueError: if it has no label, or the built book has no number for it.
        """
        if not label:
            raise ValueError("a figure wants a `name`, an exercise a `:label:`, for its number")
        uri, _ = self.find("std:label", label)
        if uri not in self.numbers:
            raise ValueError(f"{label!r} has no number; refer to it with {{ref}}")
        return self.numbers[uri]

    def page(self, uri: str) -> str | None:
        """The published address of a page of the HTML, or None."""
        site = f"{self.owner}.github.io".lower()
        folder = "" if self.name.lower() == site else f"{self.name}/"
        return f"https://{site}/{folder}{uri}" if self.owner else None

    def colab(self, path: str) -> str | None:
        """The address that opens the notebook at ``path`` (below the root) in Colab, or None."""
        opened = f"github/{self.owner}/{self.name}/blob/{COLAB_BRANCH}/{path}"
        return f"https://colab.research.google.com/{opened}" if self.owner else None

    def citation(self, keys: str, *, parenthetical: bool) -> str:
        """Cited works in running text, each a link to where it is read: "Hinton et al. (2015)".

        Raises:
            ValueError: if a key is not in ``references.bib``.
        """
        cited = []
        for key in map(str.strip, keys.split(",")):
            if key not in self.bibliography:
                raise ValueError(f"{key!r} is not in references.bib")
            entry = self.bibliography[key]
            year = entry.fields["year"]
            text = f"{_authors(entry)}, {year}" if parenthetical else f"{_authors(entry)} ({year})"
            cited.append(link(text, _read_at(entry)))
        return f"({'; '.join(cited)})" if parenthetical else ", ".join(cited)


def link(text: str, address: str | None) -> str:
    """A Markdown link, or its text where there is no address."""
    return f"[{text}]({address})" if address else text


def _authors(entry: Entry) -> str:
    people = entry.persons.get("author") or entry.persons.get("editor", [])
    family = [" ".join(map(str, [*person.rich_prelast_names, *person.rich_last_names])) for person in people]
    return f"{family[0]} et al." if len(family) > 2 else " and ".join(family)


def _read_at(entry: Entry) -> str | None:
    fields = entry.fields
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if "eprint" in fields and fields.get("archiveprefix", "arXiv").lower() == "arxiv":
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return fields.get("url")
