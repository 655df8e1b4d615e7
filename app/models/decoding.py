"""Text as it comes from a model server, made storable piece by piece."""

from __future__ import annotations

import re

from app.domain.messages import storable

_SURROGATES = re.compile("[\ud800-\udfff]")


class PieceDecoder:
    """Joins characters that a server cut in two, and replaces what cannot be stored.

    JSON writes a character beyond U+FFFF as two escapes (RFC 8259, section 7). A server that
    streams may send one of them in each of two events, and each is a lone surrogate by itself.
    """

    def __init__(self) -> None:
        self._high = ""

    def feed(self, piece: str) -> str:
        """Give what can be said now, perhaps nothing; half a character is kept for the next."""
        if not self._high and _SURROGATES.search(piece) is None:
            return storable(piece)
        units = (self._high + piece).encode("utf-16-le", "surrogatepass")
        text = units.decode("utf-16-le", "surrogatepass")
        self._high = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._high, text = text[-1], text[:-1]
        return storable(text)

    def end(self) -> str:
        """Give what is left: U+FFFD for a character whose second half never came."""
        left, self._high = self._high, ""
        return storable(left)
