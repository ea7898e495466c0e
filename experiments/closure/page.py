"""One self-contained HTML page of sections and figures, in the style of `report.html`."""

import base64
import html
import io
import os
from collections.abc import Iterable
from pathlib import Path
from string import Template

from hybridgcm import plot


def write_page(
    path: str | os.PathLike,
    title: str,
    byline: str,
    abstract: str,
    parts: Iterable[tuple[str, str, str]],
    films: int = 1,
) -> Path:
    """Write a page of `parts` (anchor, heading, HTML) to `path`, and return that path; parts without HTML are left out.

    `abstract`: paragraphs apart by an empty line; `films`: columns of an animation. Text is escaped, parts are not.
    The file is replaced only when the page is complete.
    """
    parts = [(anchor, heading, body) for anchor, heading, body in parts if body]
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=html.escape(title),
        byline=html.escape(byline),
        abstract="".join(f"<p>{html.escape(text.strip())}</p>" for text in abstract.split("\n\n")),
        contents="".join(f'<a href="#{anchor}">{heading}</a>' for anchor, heading, _ in parts),
        sections="\n".join(f'<section id="{a}">\n<h2>{heading}</h2>\n{body}\n</section>' for a, heading, body in parts),
        films=films,
    )
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(path)


def plate(figure, caption: str, alt: str, kind: str = "svg") -> str:
    """A figure as an image inside the page: vectors ("svg"), or pixels at twice the printed size ("png")."""
    data = base64.b64encode(image(figure, kind, 190)).decode()
    source = f"data:image/{'svg+xml' if kind == 'svg' else kind};base64,{data}"
    shown = f'<img src="{source}" alt="{html.escape(alt)}">'
    return f'<figure><div class="plate">{shown}</div><figcaption><b></b>{html.escape(caption)}</figcaption></figure>\n'


def image(figure, kind: str, dpi: int) -> bytes:
    """Bytes of a figure; an SVG of the same figure has the same bytes."""
    file = io.BytesIO()
    with plot.style():
        figure.savefig(file, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


def details(summary: str, body: str, state: str = "") -> str:
    """A part that opens on a click; `state` " open" shows it from the start."""
    return f"<details{state}><summary>{summary}</summary>{body}</details>"
