"""``POST /auth/ticket``: what a client puts in the address of a stream instead of a token."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import post
from litestar.response import Response

from app.streams.tickets import TICKET_SECONDS
from app.web.api import json_response
from app.web.auth import caller_of
from app.web.parts import parts_of
from app.web.problems import AnyRequest


class Ticket(msgspec.Struct, frozen=True):
    """A ticket that was made."""

    ticket: str
    expires_in: int
    """Seconds within which it must be used."""

    def __repr__(self) -> str:
        """Keep the ticket out of whatever shows this."""
        return f"Ticket(expires_in={self.expires_in})"


@post("/auth/ticket", status_code=200)
async def issue_ticket(request: AnyRequest) -> Response[bytes]:
    """Make a ticket for the caller."""
    ticket = await parts_of(request).gatekeeper.tickets.issue(caller_of(request))
    return json_response(Ticket(ticket, TICKET_SECONDS))


ROUTES: Final = [issue_ticket]
