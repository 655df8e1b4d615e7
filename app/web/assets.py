"""The static files: read once at the start, served from memory under the hash of their content."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from litestar.response.base import ASGIResponse

from app.domain.errors import NotFound
from app.web.compression import accepts_gzip

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served; everything else in the folder (licences, versions) is for its readers."""

_YEAR: Final = "public, max-age=31536000, immutable"
_REVALIDATE: Final = "no-cache"


class Asset(NamedTuple):
    """One file with what its responses need."""

    body: bytes
    compressed: bytes
    media_type: str
    version: str
    """The first digits of the SHA-256 of the content."""


class Assets:
    """The files of one folder; a path is looked up and never opened, so none leads outside."""

    def __init__(self, folder: Path) -> None:
        """Read the folder; a file that changes later is served as it was."""
        self._assets = dict(_read(folder))

    def url(self, name: str) -> str:
        """Give a URL that changes with the content; KeyError for a file that is not there."""
        return f"/static/{name}?v={self._assets[name].version}"

    def response(
        self, name: str, *, version: str | None, if_none_match: str, accept_encoding: str
    ) -> ASGIResponse:
        """Answer a request for a file; NotFound where there is none.

        Under the current version it may be kept for a year, under another it is to be revalidated:
        an old page must not fill caches with new content under an old name.
        """
        asset = self._assets.get(name)
        if asset is None:
            raise NotFound
        etag = f'"{asset.version}"'
        headers = {
            "ETag": etag,
            "Cache-Control": _YEAR if version == asset.version else _REVALIDATE,
            "Vary": "Accept-Encoding",
        }
        if etag in {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}:
            return ASGIResponse(status_code=304, headers=headers)
        body = asset.body
        if accepts_gzip(accept_encoding):
            headers["Content-Encoding"] = "gzip"
            # The same name for two representations would let a cache mix them up (RFC 9110, 8.8.3).
            headers["ETag"] = f"W/{etag}"
            body = asset.compressed
        headers["Content-Type"] = asset.media_type
        return ASGIResponse(body=body, headers=headers)


def _read(folder: Path) -> Iterator[tuple[str, Asset]]:
    for path in sorted(folder.rglob("*")):
        media_type = _MEDIA_TYPES.get(path.suffix)
        if media_type is not None and path.is_file():
            body = path.read_bytes()
            yield (
                path.relative_to(folder).as_posix(),
                Asset(
                    body,
                    gzip.compress(body, mtime=0),
                    media_type,
                    hashlib.sha256(body).hexdigest()[:16],
                ),
            )
