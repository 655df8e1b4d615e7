"""Markdown as HTML that is safe to show: whole answers, and answers that are still growing.

``Markdown.document`` renders a text once. ``Markdown.stream`` follows a growing one: a block that
is finished is final HTML, and only the open block is rendered again. Both number the blocks by the
text alone, so that a page rendered in the middle and the stream that continues it agree.
"""

from app.web.markdown.render import Block, Markdown
from app.web.markdown.stream import Change, MarkdownStream, code_run

__all__ = ["Block", "Change", "Markdown", "MarkdownStream", "code_run"]
