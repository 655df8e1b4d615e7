"""The Litestar application, made of parts that are handed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from litestar import Litestar
from litestar.routes import HTTPRoute

from app.web import (
    account,
    api,
    conversations,
    events,
    health,
    message_actions,
    own_data,
    page_stream,
    pages,
    schema,
    sessions,
    sign_in,
    static_files,
    tickets,
    ws,
)
from app.web.edge import Edge
from app.web.parts import Parts, as_state
from app.web.problems import ProblemHandler


def create_application(
    parts: Parts, lifespan: Callable[[], AbstractAsyncContextManager[None]]
) -> Litestar:
    """Make the application; ``lifespan`` is entered before the first request is served."""

    @asynccontextmanager
    async def with_parts(_: Litestar) -> AsyncIterator[None]:
        async with lifespan():
            yield

    application = Litestar(
        route_handlers=[
            *api.ROUTES,
            *sessions.ROUTES,
            *events.ROUTES,
            *ws.ROUTES,
            *sign_in.ROUTES,
            *account.ROUTES,
            *own_data.ROUTES,
            *pages.ROUTES,
            *conversations.ROUTES,
            *message_actions.ROUTES,
            *page_stream.ROUTES,
            *health.ROUTES,
            *schema.ROUTES,
            *static_files.ROUTES,
            *tickets.ROUTES,
        ],
        guards=[parts.limits.guard(parts.gatekeeper)],
        exception_handlers={
            Exception: ProblemHandler(parts.rendering.problem, sign_in.ask_to_sign_in)
        },
        lifespan=[with_parts],
        state=as_state(parts),
        # Ours is held to the routes by a test and says what Litestar cannot know.
        openapi_config=None,
        logging_config=None,
        # Bodies are read in app.web.bodies, which knows the limit.
        request_max_body_size=None,
    )
    # Around everything, so that responses to unknown paths pass it too: middleware proper is
    # only asked once a route was found.
    application.asgi_handler = Edge(
        application.asgi_handler,
        parts.metrics,
        methods={
            route.path_format: frozenset(route.methods)
            for route in application.routes
            if isinstance(route, HTTPRoute)
        },
        trusted_proxies=parts.trusted_proxies,
        strict_transport=parts.strict_transport,
    )
    return application
