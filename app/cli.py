"""The ``throughline`` command.

Each subcommand is a composition root: it reads the settings, makes the parts and hands them
values. What a subcommand needs is imported when it runs, so that the others are quick.

Exit statuses: 0 done or ended in good order, 1 failed, 2 wrong usage or broken settings. Every
failure that is not a bug is named in plain lines on stderr, without a traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from app.accounts.accounts import Accounts
    from app.config import Settings
    from app.db.engine import Database

_PROCESSES_MAX = 64
_NAME_MAX_CHARACTERS = 64
_HOURS_MAX = 24 * 365
_PORT_MAX = 65_535


class Refused(Exception):
    """The command cannot do its work; the message is one sentence for a person."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Name the mistake in one line; the usage is one ``--help`` away."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    options = _parser().parse_args(arguments)
    from app.config import SettingsError
    from app.domain.errors import ChatError

    try:
        result: int = options.run(options)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    except (Refused, ChatError) as error:
        print(f"throughline: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return result


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="throughline",
        description="An AI chat server whose answers survive reloads, reconnects and crashes.",
        epilog="Settings come from the environment: see docs/operations.md.",
        allow_abbrev=False,
    )
    version = importlib.metadata.version("throughline")
    parser.add_argument("--version", action="version", version=f"throughline {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    up = commands.add_parser("up", help="run everything on this machine, with embedded parts")
    up.add_argument("--port", help="port of the first web node (8000)")
    up.add_argument("--host", help="address to listen on (127.0.0.1)")
    up.add_argument("--web", type=_from_1, default=1, metavar="N", help="web nodes (1)")
    up.add_argument("--workers", type=_from_0, default=1, metavar="N", help="workers (1)")
    up.add_argument("--data", metavar="DIR", help="data directory (./data)")
    up.add_argument("--model", metavar="NAME", help="model of questions that name none")
    up.set_defaults(run=_up)

    web = commands.add_parser("web", help="run one web node")
    web.add_argument("--host", help="address to listen on (127.0.0.1)")
    web.add_argument("--port", help="port to listen on (8000)")
    web.set_defaults(run=_web)

    worker = commands.add_parser("worker", help="run one worker")
    worker.add_argument("role", choices=["generation"])
    worker.set_defaults(run=_worker)

    model = commands.add_parser("model", help="run a small language model on this machine")
    model.add_argument("--port", type=_port, default=0, help="port on 127.0.0.1 (a free one)")
    model.set_defaults(run=_model)

    _add_user_commands(commands)

    token = commands.add_parser("token", help="print a token for a user, made where missing")
    token.add_argument("name", metavar="NAME", type=_name)
    token.add_argument("--admin", action="store_true", help="let it open the admin pages")
    token.add_argument("--hours", type=_hours, help="how long it is valid (12)")
    token.set_defaults(run=_token)

    migrate = commands.add_parser("migrate", help="bring the database up to date")
    migrate.set_defaults(run=_migrate)

    doctor = commands.add_parser("doctor", help="examine the installation, say what to do")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_user_commands(commands: Any) -> None:
    user = commands.add_parser("user", help="make, disable, list and invite users")
    about = user.add_subparsers(required=True, metavar="COMMAND", dest="about")
    create = about.add_parser("create", help="make an account; asks for its password")
    create.add_argument("name", metavar="NAME", type=_name)
    create.add_argument("--admin", action="store_true", help="make it an administrator's")
    password = create.add_mutually_exclusive_group()
    password.add_argument(
        "--password-stdin", action="store_true", help="read the password from stdin, one line"
    )
    password.add_argument(
        "--no-password", action="store_true", help="for tokens only: nobody can sign in with it"
    )
    create.set_defaults(run=_user_create)
    disable = about.add_parser("disable", help="shut an account and end what is open in its name")
    disable.add_argument("name", metavar="NAME", type=_name)
    disable.set_defaults(run=_user_disable)
    deleted = about.add_parser(
        "delete", help="delete an account with all that was said in it, for good"
    )
    deleted.add_argument("name", metavar="NAME", type=_name)
    deleted.add_argument("--yes", action="store_true", required=True, help="you mean it")
    deleted.set_defaults(run=_user_delete)
    listed = about.add_parser("list", help="list the accounts")
    listed.set_defaults(run=_user_list)
    invite = about.add_parser("invite", help="print a link that lets one person sign up")
    invite.set_defaults(run=_user_invite)


def _up(options: argparse.Namespace) -> int:
    from app.config import LauncherSettings
    from app.launcher import up

    settings = LauncherSettings(
        **_given(
            port=options.port,
            host=options.host,
            data_dir=options.data,
            model_default=options.model,
        )
    )
    _configure_logging(settings)
    return asyncio.run(up(settings, web=options.web, workers=options.workers))


def _web(options: argparse.Namespace) -> int:
    from app.config import WebSettings

    settings = WebSettings(**_given(host=options.host, port=options.port))
    settings.signing_key()  # an unusable one is named here, not at the first request
    _need_redis(settings)
    _configure_logging(settings)
    from app.main import serve

    serve(settings)
    return 0


def _worker(options: argparse.Namespace) -> int:
    from app.config import Settings

    settings = Settings()
    _need_redis(settings)
    _configure_logging(settings)
    from workers.__main__ import run

    return run(settings, options.role)


def _model(options: argparse.Namespace) -> NoReturn:
    from app.config import Settings
    from app.local_model import LocalModelMissing, find_weights, serve

    settings = Settings()
    key = settings.model_local_key
    try:
        weights = find_weights(settings.model_local_file)
    except LocalModelMissing as error:
        raise Refused(str(error)) from None
    serve(
        weights,
        host="127.0.0.1",
        port=options.port,
        key=None if key is None else key.get_secret_value(),
        context_tokens=settings.model_local_context_tokens,
    )


def _token(options: argparse.Namespace) -> int:
    from app import user_commands
    from app.composition import issuer_of
    from app.config import Settings

    settings = Settings()
    issuer = issuer_of(settings)

    async def issue() -> str:
        async with _database(settings) as database:
            return await user_commands.token(
                database,
                issuer,
                name=options.name,
                as_admin=options.admin,
                ttl_seconds=(
                    settings.jwt_ttl_seconds
                    if options.hours is None
                    else round(options.hours * 3600)
                ),
            )

    print(asyncio.run(issue()))
    return 0


def _user_create(options: argparse.Namespace) -> int:
    from app import user_commands

    if options.no_password:
        password = None
    elif options.password_stdin:
        password = user_commands.password_from(sys.stdin)
    else:
        password = user_commands.password_typed()
    return _with_accounts(
        lambda accounts: user_commands.create(
            accounts, name=options.name, password=password, is_admin=options.admin
        )
    )


def _user_disable(options: argparse.Namespace) -> int:
    from app import user_commands

    return _with_accounts(lambda accounts: user_commands.disable(accounts, name=options.name))


def _user_delete(options: argparse.Namespace) -> int:
    import structlog

    from app import user_commands
    from app.accounts.erasure import AccountErasure
    from app.accounts.passwords import Passwords
    from app.composition import clock_of
    from app.config import Settings
    from app.streams.connection import connect
    from app.streams.revocations import Revocations
    from app.telemetry import configure_logging

    settings = Settings()
    configure_logging(environment=settings.environment, level="error")

    async def run() -> str:
        redis = connect(settings.redis_address, timeout_seconds=2.0, max_connections=1)
        passwords = Passwords()
        try:
            async with _database(settings) as database:
                erasure = AccountErasure(
                    database=database,
                    passwords=passwords,
                    revoker=Revocations(redis),
                    clock=clock_of(settings),
                    logger=structlog.get_logger("app.accounts"),
                )
                return await user_commands.delete(erasure, name=options.name)
        finally:
            passwords.close()
            await redis.aclose(close_connection_pool=True)

    print(asyncio.run(run()))
    return 0


def _user_list(_: argparse.Namespace) -> int:
    from app import user_commands

    return _with_accounts(user_commands.listed)


def _user_invite(_: argparse.Namespace) -> int:
    from app import user_commands
    from app.config import Settings

    settings = Settings()
    origin = settings.public_origin or f"http://localhost:{settings.port}"
    return _with_accounts(lambda accounts: user_commands.invite(accounts, origin=origin))


def _with_accounts(work: Callable[[Accounts], Awaitable[str | Sequence[str]]]) -> int:
    """Do something with the accounts of this installation, and print what came of it."""
    from app.accounts.passwords import Passwords
    from app.composition import accounts_of, issuer_of
    from app.config import Settings
    from app.streams.connection import connect
    from app.streams.revocations import Revocations
    from app.telemetry import configure_logging

    settings = Settings()
    configure_logging(environment=settings.environment, level="error")
    issuer = issuer_of(settings)

    async def run() -> str | Sequence[str]:
        redis = connect(settings.redis_address, timeout_seconds=2.0, max_connections=1)
        passwords = Passwords()
        try:
            async with _database(settings) as database:
                return await work(
                    accounts_of(
                        settings,
                        database=database,
                        passwords=passwords,
                        issuer=issuer,
                        revoker=Revocations(redis),
                    )
                )
        finally:
            passwords.close()
            await redis.aclose(close_connection_pool=True)

    said = asyncio.run(run())
    for line in [said] if isinstance(said, str) else said:
        print(line)
    return 0


@contextlib.asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    """Give the database of this installation; raise Refused where it is not up to date."""
    from app.db import migrate
    from app.db.engine import Database

    address = settings.database_address
    file = settings.database_file
    missing = file is not None and not await asyncio.to_thread(file.exists)
    if missing or await migrate.current(address) != migrate.head():
        raise Refused("the database is not up to date; run `throughline migrate`")
    database = Database(address, timeout_seconds=settings.database_timeout_seconds)
    try:
        yield database
    finally:
        await database.close()


def _migrate(_: argparse.Namespace) -> int:
    from app.config import Settings

    settings = Settings()
    _configure_logging(settings)
    if (file := settings.database_file) is not None:
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"{file.parent}: {error.strerror}") from error
    asyncio.run(_upgrade(settings.database_address))
    return 0


async def _upgrade(address: str) -> None:
    import structlog
    from sqlalchemy.exc import DBAPIError

    from app.db import migrate

    try:
        before = await migrate.current(address)
        await migrate.upgrade(address)
    except DBAPIError as error:  # no database, or one that is not ours
        raise Refused(f"the database cannot be migrated: {error.orig}") from error
    if before != migrate.head():
        structlog.get_logger(__name__).info("database_migrated", revision=migrate.head())


def _doctor(_: argparse.Namespace) -> int:
    from app.config import Settings
    from app.doctor import Installation, examine, status

    settings = Settings()
    installation = Installation(
        data_dir=settings.data_dir,
        redis_address=settings.redis_address,
        database_address=settings.database_address,
        database_file=settings.database_file,
        secret_file=None if settings.jwt_secret else settings.secret_file,
        timeout_seconds=settings.redis_timeout_seconds,
    )

    async def report() -> int:
        findings = []
        async for finding in examine(installation):
            print(finding, flush=True)
            findings.append(finding)
        return status(findings)

    print(f"ok    Settings: {settings.environment}, data in {settings.data_dir}", flush=True)
    return asyncio.run(report())


def _need_redis(settings: Settings) -> None:
    """Refuse where the embedded server is to be used and does not run."""
    if settings.redis_url is not None:
        return
    import socket

    with contextlib.closing(socket.socket(socket.AF_UNIX)) as trial:
        try:
            trial.connect(str(settings.embedded_socket))
        except OSError:
            raise Refused(
                f"REDIS_URL is not set and no embedded server runs in {settings.data_dir}; "
                "start `throughline up` first"
            ) from None


def _configure_logging(settings: Settings) -> None:
    from app.telemetry import configure_logging

    configure_logging(environment=settings.environment, level=settings.log_level)


def _given(**options: str | None) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _number(written: str, *, lowest: float, highest: float) -> float:
    with contextlib.suppress(ValueError):
        if lowest <= (number := float(written)) <= highest:
            return number
    raise argparse.ArgumentTypeError(f"must be {lowest:g} to {highest:g}, got {written!r}")


def _whole_number(written: str, *, lowest: int, highest: int = _PROCESSES_MAX) -> int:
    number = _number(written, lowest=lowest, highest=highest)
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {written!r}")
    return int(number)


def _from_1(written: str) -> int:
    return _whole_number(written, lowest=1)


def _from_0(written: str) -> int:
    return _whole_number(written, lowest=0)


def _port(written: str) -> int:
    return _whole_number(written, lowest=0, highest=_PORT_MAX)


def _hours(written: str) -> float:
    return _number(written, lowest=0.01, highest=_HOURS_MAX)


def _name(written: str) -> str:
    if not 1 <= len(written) <= _NAME_MAX_CHARACTERS or not written.isprintable():
        raise argparse.ArgumentTypeError("must be 1 to 64 printable characters")
    if written != written.strip():
        raise argparse.ArgumentTypeError("must not begin or end with a space")
    return written
