"""What tests of every layer share: a real database, and a clock that stands still."""

from __future__ import annotations

import asyncio
import datetime
import gc
import inspect
import ipaddress
import itertools
import os
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import structlog
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from reileta.clock import Clock, SystemClock
from reileta.settings import Settings
from reileta.store import Queries, Store, open_store
from reileta.store.database_time import DatabaseTime
from reileta.store.embedded.cluster import Cluster
from tests.known_databases import DATA_PREFIX, know_copy, skip_known

# The same examples in each run, and nothing that depends on how busy the machine is.
hypothesis.settings.register_profile(
    "reileta",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "explore",  # other examples each time; for `make chaos`
    hypothesis.settings.get_profile("reileta"),
    derandomize=False,
)
hypothesis.settings.load_profile("reileta")

skip_known(pytest.MonkeyPatch())

# By default, rich draws each exception with its source and variables: that takes seconds.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.dev.set_exc_info,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

_TEMPLATE = "reileta_template"
_QUIET = {
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
"""No work in the background: databases live for seconds."""
_MEMORY = Path("/dev/shm")
_MEMORY_WANTED = 2 * 1024**3

_CLOCKS = frozenset({"autojump_clock", "mock_clock"})

PATIENCE_S = 30.0
"""How long a test waits in real time, for a socket, a process or the database. Only a failure takes
so long, also on a busy machine."""


class ManualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def steady_ms(self) -> int:
        return self.now_ms()

    def advance(self, ms: int) -> None:
        self._now_ms += ms


def lease_time(clock: Clock) -> DatabaseTime:
    """The clock as that of the database, too."""

    async def now(_: Queries) -> int:
        return clock.now_ms()

    return now


class Databases:
    """One PostgreSQL for the whole run, and as many databases in it as there are tests.

    A database is a copy of one that was migrated once. The cluster forgets nothing but a crash: it
    does not wait for the disk.
    """

    def __init__(self, data: Path) -> None:
        self._cluster = Cluster(data, durable=False, parameters=_QUIET)
        self._numbers = itertools.count(1)
        self._cluster.start()
        self._runner = asyncio.Runner()
        self._admin = self._runner.run(self._connect())
        self._runner.run(self._admin.execute(f"CREATE DATABASE {_TEMPLATE}"))
        trio.run(self._migrate)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self._cluster.url())

    async def _migrate(self) -> None:
        settings = Settings(database=self._cluster.url(_TEMPLATE))
        async with open_store(settings, SystemClock()):
            pass

    def create(self, template: str = _TEMPLATE, options: str = "") -> tuple[str, str]:
        """A fresh database: its name, and its URL."""
        name = f"test_{next(self._numbers)}"
        # Takes a third of the time of the other strategy: its checkpoints do not wait for a disk.
        self._runner.run(
            self._admin.execute(
                f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy {options}"
            )
        )
        return name, self._cluster.url(name)

    def create_encoded(self, encoding: str) -> tuple[str, str]:
        """An empty database with that encoding: its name, and its URL."""
        name = f"test_{next(self._numbers)}"
        self._runner.run(
            self._admin.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' "
                "LOCALE_PROVIDER libc LOCALE 'C'"
            )
        )
        return name, self._cluster.url(name)

    def drop(self, name: str) -> None:
        self._runner.run(self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)"))

    def close(self) -> None:
        self._runner.run(self._admin.close())
        self._runner.close()
        self._cluster.stop()


@contextmanager
def new_data_folder() -> Iterator[Path]:
    """A folder for a PostgreSQL, in memory where there is room: a database is made in a tenth of
    the time there."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_WANTED
    data = Path(tempfile.mkdtemp(prefix=DATA_PREFIX, dir=_MEMORY if roomy else None))
    data.chmod(0o711)  # as a server's data folder is; PostgreSQL may run as another account
    yield data
    shutil.rmtree(data)


_ALONE = ("tests/simulation/", "tests/chaos/")
"""Several servers each, whose timing counts: one worker runs them, one after the other."""
_LONGEST = (
    "tests/e2e/test_vanishing.py",
    "tests/e2e/test_connection_memory.py",
    "tests/e2e/test_schema.py",
    "tests/web/",
    "tests/clients/",
    "tests/e2e/federation/test_challenges.py",
    "tests/e2e/test_process.py",
    "tests/e2e/test_shared_document.py",
    "tests/e2e/test_following.py",
    "tests/api/http/test_dispatch.py::test_every_",
    "tests/reileta/test_instance_machine.py",
    "tests/reileta/test_session_machine.py",
    "tests/reileta/test_resource_machine.py",
    "tests/api/ws/test_fair_share.py",
    "tests/actors/test_node.py::test_a_soak",
    "tests/benchmarks/test_uploads.py",
    "tests/test_examples.py",
    "tests/cluster/test_try.py",
    "tests/benchmarks/test_hostile_peers.py",
    "tests/test_docs_site.py",
)
"""They run first: with one of them last, a single worker would keep all others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need a database, which `make check` leaves out; lets each worker begin
    with some of the longest. Refuses tests that ask for virtual time in vain."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "databases" in fixtures:
            item.add_marker("database")
        # pytest-trio takes the clock from the test's own arguments, not from those of a fixture.
        if isinstance(item, pytest.Function) and not _CLOCKS.isdisjoint(fixtures):
            arguments = inspect.signature(item.obj).parameters
            if _CLOCKS.isdisjoint(arguments):
                raise pytest.UsageError(f"{item.nodeid} must take autojump_clock itself")
    items[:] = _longest_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _longest_first(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The items in an order in which each worker begins with some of the longest tests.

    At first, each worker has a part of the list, in its order. Who is done takes over tests from
    the end of another one's part. So one worker would run long tests that follow each other, while
    the others have nothing left to do.
    """
    alone = [item for item in items if item.nodeid.startswith(_ALONE)]
    longest = [item for item in items if item.nodeid.startswith(_LONGEST)]
    others = [item for item in items if not item.nodeid.startswith((*_ALONE, *_LONGEST))]
    firsts = [alone, *([] for _ in range(workers - 1))]
    for number, item in enumerate(longest):
        firsts[number % (workers - 1) + 1 if workers > 1 else 0].append(item)
    ordered: list[pytest.Item] = []
    left = len(items)
    for number, first in enumerate(firsts):
        size = left // (workers - number)
        left -= size
        more = max(0, size - len(first))
        ordered += first + others[:more]
        del others[:more]
    return ordered + others


def pytest_collection_finish() -> None:
    """Takes the tests and all modules out of the garbage collector's sight: no collection frees any
    of them, and each would look at millions of objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The PostgreSQL of this run."""
    with new_data_folder() as data:
        databases = Databases(data)
        yield databases
        databases.close()


@pytest.fixture
def data_folder() -> Iterator[Path]:
    """A data folder of the test's own, for what starts a PostgreSQL itself."""
    with new_data_folder() as data:
        yield data


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """`--database` for one test: migrated, and empty."""
    name, url = databases.create()
    yield url
    databases.drop(name)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A database that no migration has seen."""
    name, url = databases.create("template1")
    yield url
    databases.drop(name)


@pytest.fixture
def c_locale_database_url(databases: Databases) -> Iterator[str]:
    """A database that no migration has seen, and whose locale knows no letters but ASCII's."""
    options = "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'"
    name, url = databases.create("template0", options)
    yield url
    databases.drop(name)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(database_url: str, clock: ManualClock) -> AsyncIterator[Store]:
    """The store, over an empty database, with the clock of the fixture `clock`."""
    know_copy(database_url)
    async with open_store(
        Settings(database=database_url), clock, lease_time=lease_time(clock)
    ) as store:
        yield store


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, signed by itself, and its key."""
    return new_certificate(tmp_path_factory.mktemp("tls"))


def new_certificate(folder: Path) -> tuple[Path, Path]:
    """Such a certificate and its key, in files of the folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def trusting(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What trusts that certificate."""
    return ssl.create_default_context(cafile=str(certificate[0]))
