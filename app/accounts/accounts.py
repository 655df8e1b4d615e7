"""Accounts: made, signed in to, signed out of, shut.

What a browser shows is a short-lived token that names its sign-in. The row of the sign-in is the
durable truth: a token is renewed from it while it is in use, and from nothing else. Ending one
marks the row, and tells the nodes through Redis, so that what is open ends at once; a node that
cannot be told finds out when the token is to be renewed.
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, Protocol

import structlog

from app.accounts.passwords import Passwords, check_new_password
from app.db import accounts as stored
from app.db import sign_ins
from app.db.accounts import Account
from app.db.engine import Database
from app.db.users import ensure_user
from app.domain.caller import DEVELOPMENT_USER
from app.domain.errors import (
    NameTaken,
    NotFound,
    SignInFailed,
    SignUpRefused,
    Unavailable,
    ValidationFailed,
)
from app.events.envelope import EventBuilder

ADMIN: Final = "admin"
"""The role that opens the admin pages."""
NAME_MAX_CHARACTERS: Final = 64
SignUp = Literal["open", "invited", "closed"]
"""Who may make an account: anybody, whoever has an invitation, or nobody but the operator."""

_LINK_LIFETIME: Final = timedelta(hours=1)
_INVITATION_LIFETIME: Final = timedelta(days=7)
_REVOKED_MARGIN_SECONDS: Final = 60
"""For clocks that differ."""


class Issuer(Protocol):
    """Signs tokens."""

    def issue(
        self,
        *,
        user_id: str,
        name: str,
        roles: Sequence[str],
        sign_in_id: str | None,
        ttl_seconds: int,
    ) -> str: ...


class Revoker(Protocol):
    """Tells every node that tokens are no longer good."""

    async def revoke_sign_in(self, sign_in_id: str, *, seconds: int) -> None: ...

    async def revoke_user(self, user_id: str, *, seconds: int) -> None: ...


class AccountRules(NamedTuple):
    """What an operator decides."""

    sign_up: SignUp
    sign_in_lifetime: timedelta
    """How long a sign-in lives without being used."""
    cookie_seconds: int
    """How long a cookie's token is good for before it must be renewed."""
    token_seconds: int
    """How long a program's token is good for."""
    allows_links: bool
    """Whether one-time links sign in: in development."""


class SignedIn(NamedTuple):
    """A sign-in, and the token that proves it for a while."""

    sign_in_id: str
    user_id: str
    name: str
    roles: Sequence[str]
    token: str

    def __repr__(self) -> str:
        """Keep the token out of whatever shows this."""
        return f"SignedIn({self.sign_in_id!r}, {self.user_id!r})"


class Accounts:
    """Everything that happens to accounts and sign-ins."""

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        issuer: Issuer,
        revoker: Revoker,
        events: EventBuilder,
        rules: AccountRules,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self.rules: Final = rules
        self._database = database
        self._passwords = passwords
        self._issuer = issuer
        self._revoker = revoker
        self._events = events
        self._new_id = new_id
        self._clock = clock
        self._log = logger

    @property
    def cookie_seconds(self) -> int:
        """How long a cookie's token is good for."""
        return self.rules.cookie_seconds

    async def sign_up(self, *, name: str, password: str, invitation: str | None = None) -> SignedIn:
        """Make an account and sign in to it.

        Raises SignUpRefused, NameTaken, ValidationFailed, Overloaded.
        """
        name = check_name(name)
        digest = await self.check_invitation(invitation)
        check_new_password(password, name=name)
        hashed = await self._passwords.hash(password)
        user_id = self._new_id()
        try:
            made = await stored.add_account(
                self._database,
                user_id=user_id,
                name=name,
                password_hash=hashed,
                is_admin=False,
                now=self._clock(),
                invitation=digest,
            )
        except LookupError:
            raise SignUpRefused("the invitation was used or has expired") from None
        if not made:
            raise NameTaken
        self._log.info("account_made", user_id=user_id, by="sign-up")
        account = await stored.account_by_id(self._database, user_id=user_id)
        if account is None:  # pragma: no cover
            raise NotFound
        return await self._begin(account, via="sign-up")

    async def check_invitation(self, invitation: str | None) -> str | None:
        """Give the digest of the invitation that sign-up needs, None where it needs none.

        Raises SignUpRefused where there is no signing up, or not with this invitation.
        """
        match self.rules.sign_up:
            case "open":
                return None
            case "closed":
                raise SignUpRefused("accounts are made by the operator of this server")
            case "invited":
                digest = _digest(invitation or "")
                if not await stored.is_invited(self._database, digest=digest, now=self._clock()):
                    raise SignUpRefused("an invitation is needed, and this one is not valid")
                return digest

    async def sign_in(self, *, name: str, password: str) -> SignedIn:
        """Sign in from a browser. Raises SignInFailed, Overloaded."""
        return await self._begin(await self._proven(name, password), via="password")

    async def token(self, *, name: str, password: str) -> str:
        """Give a program's token, which no cookie goes with. Raises SignInFailed, Overloaded."""
        account = await self._proven(name, password)
        self._log.info("token_issued", user_id=account.user_id)
        return self._issuer.issue(
            user_id=account.user_id,
            name=account.name or account.user_id,
            roles=roles_of(is_admin=account.is_admin),
            sign_in_id=None,
            ttl_seconds=self.rules.token_seconds,
        )

    async def sign_in_by_link(self, code: str) -> SignedIn:
        """Sign in with a one-time link's code, which is used up. Raises SignInFailed."""
        if not self.rules.allows_links:
            raise SignInFailed("there are no sign-in links in production")
        account = await stored.use_link(self._database, digest=_digest(code), now=self._clock())
        if account is None:
            raise SignInFailed("the link was used before or has expired")
        return await self._begin(account, via="link")

    async def renew(self, sign_in_id: str) -> SignedIn | None:
        """Give a fresh token for a sign-in that is in use; None where it has ended."""
        now = self._clock()
        live = await sign_ins.use_sign_in(
            self._database,
            sign_in_id=sign_in_id,
            now=now,
            expires_at=now + self.rules.sign_in_lifetime,
        )
        if live is None:
            return None
        return self._signed_in(live.sign_in_id, live.user_id, live.name, is_admin=live.is_admin)

    async def sign_out(self, *, user_id: str, sign_in_id: str) -> None:
        """End one sign-in; its open streams end too."""
        await sign_ins.end_sign_in(
            self._database, sign_in_id=sign_in_id, user_id=user_id, now=self._clock()
        )
        await self._revoke([sign_in_id])
        self._log.info("signed_out", user_id=user_id)

    async def sign_out_everywhere(self, *, user_id: str) -> None:
        """End all of a user's sign-ins, and every token that was issued so far."""
        ended = await stored.end_sign_ins(self._database, user_id=user_id, now=self._clock())
        await self._revoke_user(user_id)
        self._log.info("signed_out_everywhere", user_id=user_id, sign_ins=len(ended))

    async def change_password(
        self, *, user_id: str, sign_in_id: str | None, old: str, new: str
    ) -> SignedIn | None:
        """Give an account another password, and end all but the caller's own sign-in.

        Programs' tokens end as well. Gives the sign-in with a token that was issued after that;
        None for a caller without one. Raises SignInFailed for a wrong old password,
        ValidationFailed for a bad new one, Overloaded.
        """
        account = await stored.account_by_id(self._database, user_id=user_id)
        checked = await self._passwords.check(old, account.password_hash if account else None)
        if account is None or not checked.matches:
            self._log.info("password_not_changed", user_id=user_id)
            raise SignInFailed("the current password is not right")
        check_new_password(new, name=account.name or user_id)
        hashed = await self._passwords.hash(new)
        if not await stored.set_password(
            self._database,
            user_id=user_id,
            password_hash=hashed,
            expected=account.password_hash,
        ):
            raise SignInFailed("the password was changed at the same time elsewhere")
        await stored.end_sign_ins(
            self._database, user_id=user_id, now=self._clock(), but=sign_in_id
        )
        await self._revoke_user(user_id)
        self._log.info("password_changed", user_id=user_id)
        return None if sign_in_id is None else await self.renew(sign_in_id)

    async def other_sign_ins(self, *, user_id: str) -> int:
        """Count the browsers that a user is signed in with."""
        return await sign_ins.count_sign_ins(self._database, user_id=user_id, now=self._clock())

    # ---- The operator's side.

    async def create(self, *, name: str, password: str | None, is_admin: bool) -> Account:
        """Make an account, which may have no password yet. Raises NameTaken, ValidationFailed."""
        name = check_name(name)
        hashed = None
        if password is not None:
            check_new_password(password, name=name)
            hashed = await self._passwords.hash(password)
        user_id = DEVELOPMENT_USER if name == DEVELOPMENT_USER else self._new_id()
        if not await stored.add_account(
            self._database,
            user_id=user_id,
            name=name,
            password_hash=hashed,
            is_admin=is_admin,
            now=self._clock(),
        ):
            raise NameTaken(f"the name {name} is taken")
        self._log.info("account_made", user_id=user_id, by="operator", is_admin=is_admin)
        return await self._named(name)

    async def set_password(self, *, name: str, password: str) -> None:
        """Give an account a password without asking for the old one; ends its sign-ins."""
        account = await self._named(name)
        check_new_password(password, name=name)
        await stored.set_password(
            self._database,
            user_id=account.user_id,
            password_hash=await self._passwords.hash(password),
            expected=account.password_hash,
        )
        await self.sign_out_everywhere(user_id=account.user_id)

    async def disable(self, *, name: str) -> None:
        """Shut an account and end what is open in its name. Raises NotFound."""
        account = await self._named(name)
        await stored.disable(self._database, user_id=account.user_id, now=self._clock())
        await self._revoke_user(account.user_id)
        self._log.info("account_disabled", user_id=account.user_id)

    async def everybody(self) -> list[Account]:
        """Give all accounts, by name."""
        return await stored.accounts(self._database)

    async def invite(self, *, created_by: str | None = None) -> str:
        """Give a code that lets one person sign up, within a week."""
        code, now = secrets.token_urlsafe(24), self._clock()
        await stored.add_invitation(
            self._database,
            digest=_digest(code),
            created_by=created_by,
            now=now,
            expires_at=now + _INVITATION_LIFETIME,
        )
        return code

    async def administrator_link(self) -> str:
        """Give a code that signs in as the user ``dev``, made an administrator, within an hour.

        Raises SignInFailed where there are no such links.
        """
        if not self.rules.allows_links:
            raise SignInFailed("there are no sign-in links in production")
        code, now = secrets.token_urlsafe(24), self._clock()
        await ensure_user(self._database, user_id=DEVELOPMENT_USER, name=DEVELOPMENT_USER, now=now)
        await stored.make_admin(self._database, user_id=DEVELOPMENT_USER)
        await stored.add_link(
            self._database,
            digest=_digest(code),
            user_id=DEVELOPMENT_USER,
            now=now,
            expires_at=now + _LINK_LIFETIME,
        )
        return code

    # ---- What these have in common.

    async def _proven(self, name: str, password: str) -> Account:
        """Give the account whose password it is; a name that nobody has costs the same."""
        account = await stored.account_by_name(self._database, name=_written(name))
        checked = await self._passwords.check(password, account.password_hash if account else None)
        if account is None or not checked.matches or account.disabled_at is not None:
            # No name: people type their password into the wrong field.
            self._log.info("sign_in_refused")
            raise SignInFailed
        if checked.rehashed is None:
            return account
        if await stored.set_password(
            self._database,
            user_id=account.user_id,
            password_hash=checked.rehashed,
            expected=account.password_hash,
        ):
            account = account._replace(password_hash=checked.rehashed)
        return account

    async def _begin(self, account: Account, *, via: str) -> SignedIn:
        sign_in_id, now = self._new_id(), self._clock()
        begun = await sign_ins.begin_sign_in(
            self._database,
            sign_in_id=sign_in_id,
            user_id=account.user_id,
            now=now,
            expires_at=now + self.rules.sign_in_lifetime,
            password_hash=account.password_hash,
            events=[
                self._events.user_signed_in(
                    user_id=account.user_id, sign_in_id=sign_in_id, via=via, now=now
                )
            ],
        )
        if not begun:
            raise SignInFailed
        self._log.info("signed_in", user_id=account.user_id, via=via)
        return self._signed_in(sign_in_id, account.user_id, account.name, is_admin=account.is_admin)

    def _signed_in(
        self, sign_in_id: str, user_id: str, name: str | None, *, is_admin: bool
    ) -> SignedIn:
        roles = roles_of(is_admin=is_admin)
        token = self._issuer.issue(
            user_id=user_id,
            name=name or user_id,
            roles=roles,
            sign_in_id=sign_in_id,
            ttl_seconds=self.rules.cookie_seconds,
        )
        return SignedIn(sign_in_id, user_id, name or user_id, roles, token)

    async def _named(self, name: str) -> Account:
        account = await stored.account_by_name(self._database, name=_written(name))
        if account is None:
            raise NotFound(f"there is no user {name}")
        return account

    async def _revoke(self, ended: Iterable[str]) -> None:
        seconds = self.rules.cookie_seconds + _REVOKED_MARGIN_SECONDS
        try:
            for sign_in_id in ended:
                await self._revoker.revoke_sign_in(sign_in_id, seconds=seconds)
        except Unavailable:
            # The rows have ended: no token is renewed any more.
            self._log.warning("revocation_not_told", what="sign-in")

    async def _revoke_user(self, user_id: str) -> None:
        seconds = max(self.rules.cookie_seconds, self.rules.token_seconds)
        try:
            await self._revoker.revoke_user(user_id, seconds=seconds + _REVOKED_MARGIN_SECONDS)
        except Unavailable:
            self._log.warning("revocation_not_told", what="user", user_id=user_id)


def roles_of(*, is_admin: bool) -> list[str]:
    """Give the roles that a token names."""
    return [ADMIN] if is_admin else []


def check_name(name: str) -> str:
    """Give a name as it is stored; raise ValidationFailed for what cannot be one."""
    written = _written(name)
    if not 1 <= len(written) <= NAME_MAX_CHARACTERS or not written.isprintable():
        raise ValidationFailed(f"a name must have 1 to {NAME_MAX_CHARACTERS} printable characters")
    return written


def _written(name: str) -> str:
    return unicodedata.normalize("NFKC", name).replace("\x00", "").strip()


def _digest(code: str) -> str:
    """Give what is stored of a code. It has 192 bits of chance: no salt and no slow hash needed."""
    return hashlib.sha256(code.encode("utf-8", "replace")).hexdigest()
