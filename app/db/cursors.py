"""Page cursors: where a page ends, in a form that callers pass on unread."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from app.domain.errors import InvalidCursor

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_WRITTEN: Final = re.compile(r"(0|[1-9][0-9]{0,15})\.([A-Za-z0-9-]{1,64})", re.ASCII)


class SessionCursor(NamedTuple):
    """The last session of a page; the next page holds what was active before it."""

    updated_at: datetime
    session_id: str

    def __str__(self) -> str:
        """Give the opaque form: letters, digits, ``-`` and ``_``."""
        microseconds = (self.updated_at - _EPOCH) // _MICROSECOND
        plain = f"{microseconds}.{self.session_id}".encode()
        return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()

    @classmethod
    def parse(cls, written: str) -> SessionCursor:
        """Read the opaque form; raise InvalidCursor for anything that ``str`` did not give."""
        try:
            padded = written + "=" * (-len(written) % 4)
            plain = base64.urlsafe_b64decode(padded.encode("ascii")).decode("ascii")
        except (binascii.Error, UnicodeError) as error:
            raise InvalidCursor from error
        match = _WRITTEN.fullmatch(plain)
        if match is None:
            raise InvalidCursor
        cursor = cls(_EPOCH + int(match[1]) * _MICROSECOND, match[2])
        # The decoder skips what is not of its alphabet.
        if str(cursor) != written:
            raise InvalidCursor
        return cursor
