"""The parts of an answer, and each shape that it can take: text, Markdown, CSV, HTML."""
