"""From a document to the lines of any shape but JSON."""

from collections.abc import Iterator

from pipeline.rendering.csv import render_sheet
from pipeline.rendering.document import Document
from pipeline.rendering.html import render_html
from pipeline.rendering.markdown import render_markdown
from pipeline.rendering.shapes import Shape

FILES = {Shape.MARKDOWN: render_markdown, Shape.CSV: render_sheet, Shape.HTML: render_html}


def render(document: Document, shape: Shape) -> Iterator[str]:
    """Write *document* line by line, without line ends, in any shape but JSON.

    A sheet (CSV) holds the document's first table, or, without one, its first chart as a table.
    """
    if shape is Shape.TEXT:
        from pipeline.rendering.text import render_text  # rich is slow to import

        return render_text(document)
    return FILES[shape](document)
