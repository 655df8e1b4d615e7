"""Signing in over HTTP: the cookie, what it may not do alone, and when it stops to count."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from argon2 import PasswordHasher

from app.domain.errors import Unavailable
from tests.support.web import SECRET, WebNode, ask, following, serving, token, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "correct horse battery"
ORIGIN = "http://127.0.0.1"
PAGE = {"Accept": "text/html"}
NAVIGATION = PAGE | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "same-origin"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WebNode]:
    """Serve in production, where anybody may make an account."""
    async with serving(
        tmp_path_factory.mktemp("sign-in"),
        worker=False,
        environment="production",
        public_origin=ORIGIN,
        sign_up="open",
        sign_in_failures_per_account=0,
        sign_in_failures_per_address=0,
    ) as node:
        yield node


@pytest_asyncio.fixture(loop_scope="module")
async def node(served: WebNode) -> AsyncIterator[WebNode]:
    """Give the node with nobody known to it, and look at what it wrote."""
    yield served
    with closing(connect(served.database)) as database:
        for table in ("outbox", "sign_ins", "messages", "chat_sessions", "users"):
            database.execute(f"DELETE FROM {table}")
        database.commit()
    said = " ".join(str(line) for line in served.logged)
    complaints = served.complaints()
    served.logged.clear()
    assert complaints == []
    assert PASSWORD not in said
    assert "lovelace" not in said, "names are for the database"


async def sign_up(client: httpx.AsyncClient, name: str = "lovelace") -> str:
    """Make an account in this client; give the CSRF token."""
    answer = await client.post(
        "/sign-up", data={"username": name, "password": PASSWORD}, headers=NAVIGATION
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/"), answer.text
    return client.cookies["csrftoken"]


async def sign_in(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    """Send the form of the sign-in page."""
    form = {"username": "lovelace", "password": PASSWORD} | fields
    return await client.post("/sign-in", data=form, headers=NAVIGATION)


class TestForm:
    async def test_the_cookie_is_for_the_browser_alone(self, node: WebNode) -> None:
        async with node.client() as client:
            await sign_up(client)
        async with node.client() as client:
            answer = await sign_in(client, next="/chat/s-1?x=1")
            assert answer.status_code == 303
            assert answer.headers["location"] == "/chat/s-1?x=1"
            cookie, csrf = answer.headers.get_list("set-cookie")
            assert cookie.startswith("throughline=ey")
            for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=2592000"):
                assert part in cookie.split("; ")
            assert "HttpOnly" not in csrf
            assert (await client.get("/api/sessions")).status_code == 200
            shown = await client.get("/account", headers=PAGE)
            assert "<h1>lovelace</h1>" in shown.text
            assert shown.headers["cache-control"] == "no-store"

    async def test_over_https_it_is_bound_to_the_host(self, tmp_path: Path) -> None:
        async with (
            serving(
                tmp_path,
                worker=False,
                environment="production",
                public_origin="https://chat.example.org",
                sign_up="open",
            ) as node,
            node.client() as client,
        ):
            answer = await client.post(
                "/sign-up",
                data={"username": "lovelace", "password": PASSWORD},
                headers=PAGE | {"Origin": "https://chat.example.org"},
            )
            cookie, csrf = answer.headers.get_list("set-cookie")
            assert cookie.startswith("__Host-throughline=ey")
            assert "Domain" not in cookie
            assert {"Secure", "HttpOnly", "Path=/"} <= {*cookie.split("; ")}
            assert "Secure" in csrf
            # The name without the prefix is one that a neighbouring host could set.
            held = cookie.partition(";")[0].partition("=")[2]
            for name, status in (("throughline", 401), ("__Host-throughline", 200)):
                read = await client.get("/api/sessions", headers={"Cookie": f"{name}={held}"})
                assert read.status_code == status

    async def test_a_wrong_password_is_told_in_the_form_and_not_shown_again(
        self, node: WebNode
    ) -> None:
        async with node.client() as client:
            await sign_up(client)
        async with node.client() as client:
            answer = await sign_in(client, password="not the right one", next="/account")
            assert answer.status_code == 401
            assert "The name or the password is not right" in answer.text
            assert 'value="lovelace"' in answer.text
            assert 'name="next" value="/account"' in answer.text
            assert "not the right one" not in answer.text
            assert "set-cookie" not in answer.headers

    async def test_it_leads_to_no_other_site(self, node: WebNode) -> None:
        async with node.client() as client:
            await sign_up(client)
            for wanted in (
                "//evil.example",
                "https://evil.example",
                "/\\evil.example",
                "/\tx",
                "javascript:x",
                "",
            ):
                answer = await sign_in(client, next=wanted)
                assert (answer.status_code, answer.headers["location"]) == (303, "/"), wanted

    async def test_another_site_cannot_sign_a_browser_in(self, node: WebNode) -> None:
        async with node.client() as client:
            await sign_up(client)
        form = {"username": "lovelace", "password": PASSWORD}
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
            async with node.client(**PAGE, **headers) as client:
                answer = await client.post("/sign-in", data=form)
                assert answer.status_code == 403
                assert "set-cookie" not in answer.headers

    async def test_sign_up_keeps_the_name_and_says_what_is_wrong(self, node: WebNode) -> None:
        async with node.client() as client:
            form = {"username": "bob", "password": "short"}
            answer = await client.post("/sign-up", data=form, headers=NAVIGATION)
            assert answer.status_code == 400
            assert 'value="bob"' in answer.text
            assert "must have 8 to 256 characters" in answer.text

    async def test_an_invitation_comes_with_the_link(self, tmp_path: Path) -> None:
        async with (
            serving(tmp_path, worker=False, environment="production", public_origin=ORIGIN) as node,
            node.client(**NAVIGATION) as client,
        ):
            refused = await client.get("/sign-up?invitation=made-up")
            assert refused.status_code == 403
            assert "<form" not in refused.text
            code = await node.node.accounts.invite()
            shown = await client.get(f"/sign-up?invitation={code}")
            assert f'name="invitation" value="{code}"' in shown.text
            form = {"username": "lovelace", "password": PASSWORD, "invitation": code}
            assert (await client.post("/sign-up", data=form)).status_code == 303
            form["username"] = "eve"
            assert (await client.post("/sign-up", data=form)).status_code == 403


class TestCsrf:
    async def test_a_cookie_alone_changes_nothing_on_any_route(self, node: WebNode) -> None:
        """Every route that is not public is tried: a new one cannot forget the check."""
        async with node.client() as client:
            await sign_up(client)
            tried = 0
            for route in node.node.application.routes:
                for method in getattr(route, "methods", ()):
                    handlers = getattr(route, "route_handler_map", {})
                    handler: Any = handlers.get(method, (None, None))[0]
                    if method in {"GET", "HEAD", "OPTIONS"} or handler.opt.get("public"):
                        continue
                    path = re.sub(r"\{[^}]+\}", "none", route.path_format)
                    bodies: list[dict[str, Any]] = [{"json": {}}, {"data": {"title": "x"}}, {}]
                    for body in bodies:
                        answer = await client.request(method, path, **body)
                        assert answer.status_code == 403, (method, path)
                        assert answer.json()["code"] == "csrf_failed", (method, path)
                    tried += 1
            assert tried >= 15
        assert node.rows()["chat_sessions"] == 0

    async def test_the_header_or_the_field_shows_that_our_page_sent_it(self, node: WebNode) -> None:
        async with node.client() as client:
            csrf = await sign_up(client)
            body = {"title": "by script"}
            made = await client.post("/api/sessions", json=body, headers={"X-CSRFToken": csrf})
            assert made.status_code == 201
            home = await client.get("/", headers=PAGE)
            fields = re.findall(r'name="_csrf_token" value="(\w+)"', home.text)
            assert {*fields} == {csrf}
            form = {"message": "by form", "session_id": "s-1", "_csrf_token": csrf}
            assert (await client.post("/chat", data=form, headers=PAGE)).status_code == 303

    async def test_only_this_sign_in_s_token_counts(self, node: WebNode) -> None:
        async with node.client() as other:
            foreign = await sign_up(other, "eve")
        async with node.client() as client:
            csrf = await sign_up(client)
            for wrong in (foreign, "", csrf[:-1], csrf.upper(), "ä"):
                headers = [(b"X-CSRFToken", wrong.encode())]
                answer = await client.post("/api/sessions", json={}, headers=headers)
                assert answer.json()["code"] == "csrf_failed"
            twice = [("X-CSRFToken", csrf), ("X-CSRFToken", csrf)]
            answer = await client.post("/api/sessions", json={}, headers=twice)
            assert answer.json()["code"] == "csrf_failed"

    async def test_a_token_of_its_own_needs_none(self, node: WebNode) -> None:
        async with node.client_of("robot") as client:
            assert (await client.post("/api/sessions", json={})).status_code == 201

    async def test_every_form_of_every_template_has_the_field(self) -> None:
        templates = Path(__file__).parents[2] / "app" / "templates"
        without = {"sign_in.html", "sign_up.html"}
        for file in templates.glob("*.html"):
            forms = re.findall(r'<form[^>]*method="post".*?</form>', file.read_text(), re.DOTALL)
            for form in forms:
                assert "csrf_field()" in form or file.name in without, (file.name, form[:80])


class TestLife:
    async def test_signing_out_ends_the_cookie_and_what_is_open(self, node: WebNode) -> None:
        async with node.client() as client, node.client() as thief:
            csrf = await sign_up(client)
            thief.cookies.update(client.cookies)
            made = await client.post("/api/sessions", json={}, headers={"X-CSRFToken": csrf})
            path = f"/api/sessions/{made.json()['session_id']}/events"
            async with following(thief, path) as events:
                await until(events, "history")
                out = await client.post("/sign-out", data={"_csrf_token": csrf}, headers=PAGE)
                assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
                seen = await until(events, "bye")
                assert '"token_expired"' in (seen[-1].data or "")
            assert "throughline" not in client.cookies
            assert (await thief.get("/api/sessions")).status_code == 401

    async def test_another_password_ends_other_browsers_and_programs(self, node: WebNode) -> None:
        async with node.client() as own, node.client() as other:
            csrf = await sign_up(own)
            assert (await sign_in(other)).status_code == 303
            credentials = {"username": "lovelace", "password": PASSWORD}
            issued = (await other.post("/auth/token", json=credentials)).json()
            bearer = {"Authorization": f"Bearer {issued['access_token']}"}
            form = {
                "current_password": PASSWORD,
                "new_password": "another horse",
                "repeated_password": "another horse",
                "_csrf_token": csrf,
            }
            wrong = form | {"current_password": "wrong"}
            refused = await own.post("/account/password", data=wrong, headers=PAGE)
            assert refused.status_code == 401
            assert "current password is not right" in refused.text
            uneven = form | {"repeated_password": "another house"}
            refused = await own.post("/account/password", data=uneven, headers=PAGE)
            assert refused.status_code == 400
            assert (await other.get("/api/sessions")).status_code == 200

            changed = await own.post("/account/password", data=form, headers=PAGE)

            assert changed.status_code == 303
            assert (await own.get("/api/sessions")).status_code == 200
            assert (await other.get("/api/sessions")).status_code == 401
            async with node.client(**bearer) as program:
                assert (await program.get("/api/sessions")).status_code == 401
            assert (await sign_in(other)).status_code == 401
            assert (await sign_in(other, password="another horse")).status_code == 303

    async def test_signing_out_everywhere_is_just_that(self, node: WebNode) -> None:
        async with node.client() as own, node.client() as other:
            csrf = await sign_up(own)
            assert (await sign_in(other)).status_code == 303
            form = {"_csrf_token": csrf}
            answer = await own.post("/account/sign-out-everywhere", data=form, headers=PAGE)
            assert answer.headers["location"] == "/sign-in"
            for client in (own, other):
                assert (await client.get("/api/sessions")).status_code == 401
            assert (await sign_in(own)).status_code == 303
            assert (await own.get("/api/sessions")).status_code == 200

    async def test_a_cookie_in_use_is_renewed_at_half_of_its_life(self, node: WebNode) -> None:
        async with node.client() as client:
            await sign_up(client)
            fresh = client.cookies["throughline"]
            assert "set-cookie" not in (await client.get("/api/sessions")).headers
            client.cookies.set("throughline", _aged(fresh, seconds=500), domain="127.0.0.1")
            answer = await client.get("/api/sessions")
            assert answer.status_code == 200
            renewed, csrf = answer.headers.get_list("set-cookie")
            claims = _claims(renewed.partition(";")[0].partition("=")[2])
            assert claims["sid"] == _claims(fresh)["sid"]
            assert claims["exp"] >= time.time() + 890
            assert csrf.startswith("csrftoken=")

    async def test_one_that_expired_counts_while_its_sign_in_lives(self, node: WebNode) -> None:
        """Who comes back the next day is still signed in; the row decides, not the token."""
        async with node.client() as client:
            csrf = await sign_up(client)
            old = _aged(client.cookies["throughline"], seconds=86_400)
            client.cookies.set("throughline", old, domain="127.0.0.1")
            answer = await client.get("/api/sessions")
            assert answer.status_code == 200
            assert len(answer.headers.get_list("set-cookie")) == 2
            headers = {"X-CSRFToken": csrf}
            assert (await client.post("/sign-out", headers=headers)).status_code == 303
        async with node.client(Cookie=f"throughline={old}") as thief:
            assert (await thief.get("/api/sessions")).status_code == 401

    async def test_it_expires_where_the_sign_in_cannot_be_looked_up(
        self, node: WebNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with node.client() as client:
            await sign_up(client)
            fresh = client.cookies["throughline"]

            async def unavailable(sign_in_id: str) -> None:
                raise Unavailable

            monkeypatch.setattr(node.node.accounts, "renew", unavailable)
            for seconds, status in ((500, 200), (1000, 503)):
                aged = _aged(fresh, seconds=seconds)
                client.cookies.set("throughline", aged, domain="127.0.0.1")
                assert (await client.get("/api/models")).status_code == status

    async def test_a_token_for_programs_is_no_cookie(self, node: WebNode) -> None:
        async with node.client(Cookie=f"throughline={token('lovelace')}") as client:
            assert (await client.get("/api/sessions")).status_code == 401

    async def test_a_disabled_user_is_out_when_the_cookie_is_to_be_renewed(
        self, node: WebNode
    ) -> None:
        async with node.client() as client:
            await sign_up(client)
            with closing(connect(node.database)) as database:
                # As from another process, which could not tell anybody.
                database.execute("UPDATE users SET disabled_at = '2026-01-31T09:05:00.123456Z'")
                database.commit()
            aged = _aged(client.cookies["throughline"], seconds=500)
            client.cookies.set("throughline", aged, domain="127.0.0.1")
            assert (await client.get("/api/sessions")).status_code == 401
            assert (await sign_in(client)).status_code == 401


class TestPagesWithoutASignIn:
    async def test_a_browser_is_sent_to_sign_in_and_comes_back(self, node: WebNode) -> None:
        async with node.client(**NAVIGATION) as client:
            answer = await client.get("/chat/s-1?around=m-1")
            assert answer.status_code == 303
            assert answer.headers["location"] == "/sign-in?next=/chat/s-1%3Faround%3Dm-1"
            form = await client.get(answer.headers["location"])
            assert 'name="next" value="/chat/s-1?around=m-1"' in form.text
            assert "without signing in" not in form.text

    async def test_a_script_and_a_program_are_told_so(self, node: WebNode) -> None:
        async with node.client() as client:
            for headers in (
                {"Accept": "application/json"},
                PAGE | {"Sec-Fetch-Mode": "cors"},
                PAGE | {"Authorization": "Bearer x"},
            ):
                assert (await client.get("/", headers=headers)).status_code == 401
            htmx = await client.get("/conversations", headers=PAGE | {"HX-Request": "true"})
            assert htmx.status_code == 401
            assert htmx.headers["hx-redirect"] == "/sign-in"

    async def test_a_cookie_that_is_good_for_nothing_is_forgotten(self, node: WebNode) -> None:
        async with node.client(**NAVIGATION, Cookie="throughline=x") as client:
            answer = await client.get("/")
            assert answer.status_code == 303
            assert "Max-Age=0" in answer.headers["set-cookie"]


class TestDevelopment:
    async def test_without_a_cookie_it_is_the_user_dev_with_one_it_is_who_signed_in(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path, worker=False, sign_up="open") as node:
            async with node.client() as client:
                await ask(client, "as dev")
                assert 'href="/sign-in"' in (await client.get("/", headers=PAGE)).text
                await sign_up(client)
                assert (await client.get("/api/sessions")).json()["items"] == []
                home = await client.get("/", headers=PAGE)
                assert "Account of lovelace" in home.text
                client.cookies.set("throughline", "wrong", domain="127.0.0.1")
                assert (await client.get("/api/sessions")).status_code == 401
            async with node.client() as client:
                assert len((await client.get("/api/sessions")).json()["items"]) == 1

    async def test_the_link_is_used_up_by_opening_it_and_not_by_looking(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path, worker=False) as node, node.client(**NAVIGATION) as client:
            path = f"/sign-in/link?code={await node.node.accounts.administrator_link()}"
            assert (await client.head(path)).status_code == 303
            opened = await client.get(path)
            assert (opened.status_code, opened.headers["location"]) == (303, "/")
            assert "An administrator" in (await client.get("/account")).text
            assert (await client.get(path)).status_code == 401


class TestPrograms:
    async def test_a_name_and_a_password_give_a_token(self, node: WebNode) -> None:
        async with node.client() as client:
            await sign_up(client)
        async with node.client() as client:
            credentials = {"username": "lovelace", "password": PASSWORD}
            answer = await client.post("/auth/token", json=credentials)
            assert answer.status_code == 200
            body = answer.json()
            assert body.keys() == {"access_token", "token_type", "expires_in"}
            assert (body["token_type"], body["expires_in"]) == ("bearer", 43_200)
            assert "set-cookie" not in answer.headers
            bearer = {"Authorization": f"Bearer {body['access_token']}"}
            assert (await client.get("/api/sessions", headers=bearer)).status_code == 200
            credentials["password"] = "wrong"
            refused = await client.post("/auth/token", json=credentials)
            assert (refused.status_code, refused.json()["code"]) == (401, "sign_in_failed")

    async def test_wrong_passwords_are_looked_at_two_at_a_time_while_others_go_on(
        self, node: WebNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Hashing stands still here: whoever needs none must not notice."""
        async with node.client() as client:
            headers = {"X-CSRFToken": await sign_up(client)}
            held, most, lock = 0, 0, threading.Lock()
            gate = threading.Event()
            verify = PasswordHasher.verify

            def slow(hasher: PasswordHasher, stored: str, password: str) -> bool:
                nonlocal held, most
                with lock:
                    held += 1
                    most = max(most, held)
                assert gate.wait(60)
                with lock:
                    held -= 1
                return verify(hasher, stored, password)

            monkeypatch.setattr(PasswordHasher, "verify", slow)
            async with node.client() as attacker:
                attacker.timeout = httpx.Timeout(60)
                name = {"username": "lovelace"}
                tries = [
                    asyncio.create_task(
                        attacker.post("/auth/token", json=name | {"password": f"wrong {n}"})
                    )
                    for n in range(90)
                ]
                try:
                    for _ in range(20):
                        assert (await client.get("/api/sessions")).status_code == 200
                        made = await client.post("/api/sessions", json={}, headers=headers)
                        assert made.status_code == 201
                finally:
                    gate.set()
                answers = [answer.status_code for answer in await asyncio.gather(*tries)]
            assert most <= 2
            assert {*answers} == {401, 503}
            assert answers.count(401) >= 2


def _claims(written: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(
        written, SECRET, algorithms=["HS256"], options={"verify_exp": False}
    )
    return claims


def _aged(written: str, *, seconds: int) -> str:
    """Give the token as it would be so many seconds later, seen from now."""
    header = jwt.get_unverified_header(written)
    claims = _claims(written)
    for name in ("iat", "exp"):
        claims[name] -= seconds
    return jwt.encode(claims, SECRET, algorithm="HS256", headers={"kid": header["kid"]})
