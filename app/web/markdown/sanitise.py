"""The last step before a reader's browser: nothing passes that is not on the list.

The text of an answer is hostile until proven otherwise: a model repeats what it was told to. The
parser has escaped raw HTML already; this holds even where it has not.
"""

from __future__ import annotations

from typing import Final

import nh3

from app.web.markdown.code import CLASSES

_TAGS: Final = {
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol",
    "p", "pre", "section", "span", "strong", "sup", "table", "tbody", "td", "th", "thead", "tr",
    "ul",
}  # fmt: skip
_REMOVED_WITH_CONTENT: Final = {"script", "style"}
_ATTRIBUTES: Final = {
    "a": {"href", "id", "title", "aria-label"},
    "li": {"id"},
    "ol": {"start"},
    "span": {"aria-label"},
}
_VALUES: Final = {
    "a": {"target": {"_blank"}},
    "div": {"tabindex": {"0"}},
    "span": {"role": {"img"}},
    "td": {"align": {"left", "center", "right"}},
    "th": {"align": {"left", "center", "right"}},
}
_CLASSES: Final = {
    "a": {"footnote-backref"},
    "div": {"scroll"},
    "li": {"task"},
    "p": {"raw"},
    "section": {"footnotes"},
    "span": {"box", "done"} | {f"t-{name}" for name in CLASSES.values()},
    "sup": {"footnote-ref"},
}
_SCHEMES: Final = {"http", "https", "mailto"}
_FOOTNOTES: Final = ("#fn-", "#fnref-")


class Sanitiser:
    """Lets pass what answers consist of; ids, and links to them, get a prefix of their own."""

    def __init__(self, prefix: str) -> None:
        """Take a prefix that no other element of the page has."""

        def inside(url: str) -> str | None:
            # Relative addresses would act on this site in the reader's name.
            return f"#{prefix}{url[1:]}" if url.startswith(_FOOTNOTES) else None

        self._cleaner = nh3.Cleaner(
            tags=_TAGS,
            clean_content_tags=_REMOVED_WITH_CONTENT,
            attributes=_ATTRIBUTES,
            tag_attribute_values=_VALUES,
            allowed_classes=_CLASSES,
            link_rel="noopener noreferrer nofollow",
            url_schemes=_SCHEMES,
            url_relative=inside,
            id_prefix=prefix,
        )

    def clean(self, html: str) -> str:
        """Give what may be shown, on its own and beside other such HTML."""
        # A bare carriage return ends a line of an event stream, and HTML reads it as a line feed.
        return self._cleaner.clean(html).replace("\r", "&#13;")
