"""A document as PDF 1.7 on A4, through pydyf, in the fonts that every reader has (Helvetica).

Laid out here: a report is headings, paragraphs and tables, and a program that lays out any page of HTML would bring
fifty megabytes and a font engine for it. Text stays text (it can be searched and copied), and headings, paragraphs and
cells are tagged in reading order (ISO 32000-1 §14.8) for those who have it read out.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Iterator

import pydyf

from alveole.figures.paper import Document, Grid, Heading

#: A4 in points, and its margins.
_WIDE, _HIGH, _MARGIN, _FOOT = 595.28, 841.89, 50.0, 40.0
_INNER = _WIDE - 2 * _MARGIN
#: Widths of Helvetica in thousandths of its size for U+0020 to U+007E, from Adobe's metrics of the standard fonts.
_WIDTHS = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278),
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556),
    *(1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778),
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556),
    *(333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556),
    *(556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
)
#: Bold is wider by this at most, on the whole of a text.
_BOLD = 1.07
_OTHERS = {"\u2019": 222, "\u2026": 1000, "\u2013": 556, "²": 333, "\u00a0": 278, "°": 400}
#: What the encoding of the standard fonts (WinAnsi) has not.
_INSTEAD = {0x202F: 0xA0, 0x2212: 0x2D, 0x2192: 0x3E}


def pdf(document: Document) -> bytes:
    pages = _Pages(document)
    pages.text(document.title, 20, bold=True, tag="H1", after=4)
    pages.text(document.subtitle, 10, after=10)
    for block in document.blocks:
        if isinstance(block, Heading):
            pages.need(90)
            pages.text(block.text, 14, bold=True, tag="H2", before=10, after=4)
        elif isinstance(block, Grid):
            pages.table(block)
        else:
            pages.text(block.text, 10, after=6)
    return pages.done()


def width(text: str, size: float, *, bold: bool = False) -> float:
    """Of a line in Helvetica, in points. Letters with accents are as wide as those without."""
    whole = 0
    for letter in text:
        place = ord(unicodedata.normalize("NFD", letter)[0]) - 32
        whole += _WIDTHS[place] if 0 <= place < len(_WIDTHS) else _OTHERS.get(letter, 556)
    return whole * size / 1000 * (_BOLD if bold else 1.0)


def lines(text: str, room: float, size: float, *, bold: bool = False) -> Iterator[str]:
    """``text`` broken at spaces; a word that has no room by itself is cut."""
    line = ""
    for word in text.split(" "):
        while width(word, size, bold=bold) > room:
            cut = max(1, sum(1 for at in range(1, len(word)) if width(word[:at], size, bold=bold) <= room))
            if line:
                yield line
                line = ""
            yield word[:cut]
            word = word[cut:]
        longer = f"{line} {word}" if line else word
        if width(longer, size, bold=bold) > room:
            yield line
            line = word
        else:
            line = longer
    yield line


class _Pages:
    """Writes from the top; begins a new page where there is no more room."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._pdf = pydyf.PDF()
        self._fonts = {}
        for name, font in (("F1", "Helvetica"), ("F2", "Helvetica-Bold")):
            made = pydyf.Dictionary(
                {"Type": "/Font", "Subtype": "/Type1", "BaseFont": f"/{font}", "Encoding": "/WinAnsiEncoding"}
            )
            self._pdf.add_object(made)
            self._fonts[name] = made.reference
        self._root = pydyf.Dictionary({"Type": "/StructTreeRoot"})
        self._pdf.add_object(self._root)
        self._top = pydyf.Dictionary({"Type": "/StructElem", "S": "/Document", "P": self._root.reference})
        self._pdf.add_object(self._top)
        self._kids: list[pydyf.Dictionary] = []
        self._parents: list[list[bytes]] = []
        self._streams: list[pydyf.Stream] = []
        self._page: pydyf.Dictionary | None = None
        self._at = 0.0
        self._new()

    def _new(self) -> None:
        stream = pydyf.Stream(compress=True)
        self._pdf.add_object(stream)
        page = pydyf.Dictionary(
            {
                "Type": "/Page",
                "Parent": self._pdf.pages.reference,
                "MediaBox": pydyf.Array([0, 0, _WIDE, _HIGH]),
                "Contents": stream.reference,
                "Resources": pydyf.Dictionary({"Font": pydyf.Dictionary(self._fonts)}),
                "StructParents": len(self._streams),
                "Tabs": "/S",
            }
        )
        self._pdf.add_page(page)
        self._page = page
        self._streams.append(stream)
        self._parents.append([])
        self._at = _HIGH - _MARGIN

    def need(self, points: float) -> None:
        if self._at - points < _MARGIN + _FOOT:
            self._new()

    def text(
        self, text: str, size: float, *, bold: bool = False, tag: str = "P", before: float = 0, after: float = 0
    ) -> None:
        self._at -= before
        above = self._element(tag, self._top)
        for line in lines(text, _INNER, size, bold=bold):
            self.need(size * 1.35)
            self._at -= size * 1.35
            self._show(line, _MARGIN, size, bold, above)
        self._at -= after

    def table(self, grid: Grid) -> None:
        size = 8.5 if len(grid.head) > 4 else 10.0
        # A short table stays in one piece.
        self.need(size * 1.9 * min(len(grid.rows) + 1, 8))
        above = self._element("Table", self._top)
        self._row(grid, grid.head, size, above, head=True)
        for row in grid.rows:
            if self._at - size * 1.9 < _MARGIN + _FOOT:
                self._new()
                self._row(grid, grid.head, size, above, head=True)
            self._row(grid, row, size, above, head=False)
        self._at -= 8

    def _row(self, grid: Grid, row: tuple[str, ...], size: float, table: pydyf.Dictionary, *, head: bool) -> None:
        above = self._element("TR", table)
        rooms = [share * _INNER - 6 for share in grid.wide]
        cells = [
            list(lines(text, room, size, bold=head or not place))
            for place, (text, room) in enumerate(zip(row, rooms, strict=True))
        ]
        high = size * 1.3 * max(map(len, cells)) + 4
        left = _MARGIN
        for place, (cell, share) in enumerate(zip(cells, grid.wide, strict=True)):
            bold = head or place == 0
            element = self._element("TH" if bold else "TD", above)
            for number, line in enumerate(cell):
                # Numbers stand at the right, so that they can be compared.
                x = left if place == 0 else left + share * _INNER - width(line, size, bold=bold)
                self._at -= size * 1.3 * (number + 1)
                self._show(line, x, size, bold, element)
                self._at += size * 1.3 * (number + 1)
            left += share * _INNER
        self._at -= high
        stream = self._streams[-1]
        stream.begin_marked_content("Artifact")
        stream.set_line_width(0.4)
        stream.set_color_rgb(0.6, 0.6, 0.6, stroke=True)
        stream.move_to(_MARGIN, self._at)
        stream.line_to(_MARGIN + _INNER, self._at)
        stream.stroke()
        stream.end_marked_content()

    def _element(self, tag: str, above: pydyf.Dictionary) -> pydyf.Dictionary:
        made = pydyf.Dictionary({"Type": "/StructElem", "S": f"/{tag}", "P": above.reference})
        self._pdf.add_object(made)
        above.setdefault("K", pydyf.Array([])).append(made.reference)
        return made

    def _show(self, text: str, x: float, size: float, bold: bool, element: pydyf.Dictionary) -> None:
        page, stream, parents = self._page, self._streams[-1], self._parents[-1]
        assert page is not None  # noqa: S101  narrows the type: a page is begun before anything is written
        part = f"<</Type/MCR/Pg {page.reference.decode()}/MCID {len(parents)}>>".encode()
        element.setdefault("K", pydyf.Array([])).append(part)
        stream.begin_marked_content("Span", f"<</MCID {len(parents)}>>".encode())
        self._write(stream, text, x, self._at, size, bold)
        stream.end_marked_content()
        parents.append(element.reference)

    @staticmethod
    def _write(stream: pydyf.Stream, text: str, x: float, y: float, size: float, bold: bool) -> None:
        stream.begin_text()
        stream.set_font_size("F2" if bold else "F1", size)
        stream.set_color_rgb(0, 0, 0)
        stream.set_text_matrix(1, 0, 0, 1, round(x, 2), round(y, 2))
        stream.show_text_string(text.translate(_INSTEAD).encode("cp1252", "replace"))
        stream.end_text()

    def done(self) -> bytes:
        for number, stream in enumerate(self._streams, 1):
            stream.begin_marked_content("Artifact")
            self._write(stream, f"{self._document.title}   {number} / {len(self._streams)}", _MARGIN, _FOOT, 8, False)
            stream.end_marked_content()
        self._root["K"] = self._top.reference
        numbers = pydyf.Array([])
        for number, parents in enumerate(self._parents):
            numbers.extend([number, b"[" + b" ".join(parents) + b"]"])
        self._root["ParentTree"] = pydyf.Dictionary({"Nums": numbers})
        self._root["ParentTreeNextKey"] = len(self._parents)
        catalog = self._pdf.catalog
        catalog["Lang"] = pydyf.String(self._document.language)
        catalog["MarkInfo"] = pydyf.Dictionary({"Marked": "true"})
        catalog["StructTreeRoot"] = self._root.reference
        catalog["ViewerPreferences"] = pydyf.Dictionary({"DisplayDocTitle": "true"})
        self._pdf.info["Title"] = pydyf.String(self._document.title)
        out = io.BytesIO()
        self._pdf.write(out)
        return out.getvalue()
