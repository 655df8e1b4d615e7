"""Deleting an account: proven, recorded, and told to every node.

What its owner said is not known here; the caller goes on with that, and a worker finishes what is
recorded whoever does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from app.db import accounts, erasure
from app.domain.caller import DEVELOPMENT_USER, LONGEST_TOKEN_SECONDS
from app.domain.errors import Forbidden, NotFound, SignInFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import structlog

    from app.accounts.accounts import Revoker
    from app.accounts.passwords import Passwords
    from app.db.accounts import Account
    from app.db.engine import Database


class AccountErasure:
    """Shuts accounts for good."""

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        revoker: Revoker,
        clock: Callable[[], datetime],
        logger: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Take the parts."""
        self._database: Final = database
        self._passwords = passwords
        self._revoker = revoker
        self._clock = clock
        self._log = logger

    async def needs_password(self, *, user_id: str) -> bool:
        """Say whether ``begin`` wants a password: where the account has one."""
        account = await accounts.account_by_id(self._database, user_id=user_id)
        return account is not None and account.password_hash is not None

    async def begin(self, *, user_id: str, password: str) -> None:
        """Shut the account of somebody who is signed in; it cannot be opened again.

        From here on no sign-in and no token of theirs counts. Raises SignInFailed for a wrong
        password where there is one, Forbidden for the user of a development machine, Overloaded.
        """
        account = await accounts.account_by_id(self._database, user_id=user_id)
        if account is None:
            raise NotFound
        if account.password_hash is not None:
            checked = await self._passwords.check(password, account.password_hash)
            if not checked.matches:
                self._log.info("account_not_deleted", user_id=user_id)
                raise SignInFailed("the password is not right")
        await self._shut(account, by="owner")

    async def begin_named(self, *, name: str) -> str:
        """Shut the account of this name, for the operator; give its id. Raises NotFound."""
        account = await accounts.account_by_name(self._database, name=name)
        if account is None:
            raise NotFound(f"there is no user {name}")
        await self._shut(account, by="operator")
        return account.user_id

    async def _shut(self, account: Account, *, by: str) -> None:
        if account.user_id == DEVELOPMENT_USER:
            # Whoever comes without a credential, in development, acts as this user.
            raise Forbidden("this user is everybody at this machine and cannot be deleted")
        if not await erasure.begin_erasure(
            self._database,
            user_id=account.user_id,
            now=self._clock(),
            password_hash=account.password_hash,
        ):
            raise SignInFailed("the account was changed at the same time elsewhere")
        try:
            await self._revoker.revoke_user(account.user_id, seconds=LONGEST_TOKEN_SECONDS)
        except Unavailable:
            # The row is shut: no sign-in is renewed any more, and nothing is asked in its name.
            self._log.warning("revocation_not_told", what="user", user_id=account.user_id)
        self._log.info("account_deleted", user_id=account.user_id, by=by)
