from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reileta import __version__, cli
from reileta.cli_options import variable
from reileta.errors import UserCannotUpdate
from reileta.settings import Settings
from reileta.startup import StartupError
from tests import logs
from tests.reileta.cli_modules import stand_in

Run = Callable[[Settings], int]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
    with logs.restored():
        yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Puts a function in the place of the composition root."""

    def put(run: Run) -> None:
        fake = types.ModuleType("reileta.main")
        vars(fake)["run"] = run
        monkeypatch.setitem(sys.modules, "reileta.main", fake)
        monkeypatch.setattr(sys.modules["reileta"], "main", fake, raising=False)

    return put


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Stands in the place of what the command line does to the database."""
    fake = types.ModuleType("reileta.store.admin_commands")
    stand_in(monkeypatch, "reileta.store.admin_commands", fake)
    return fake


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"reileta {__version__}\n"


def test_the_version_is_said_without_loading_a_server() -> None:
    code = (
        "import sys; from reileta.cli import main; main(['--version']);"
        "sys.exit(any(name in sys.modules for name in ('trio', 'quart', 'asyncpg', 'hypercorn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


COMMANDS = [
    [],
    ["serve"],
    ["trace"],
    ["replay"],
    *[["bots", *name] for name in ([], ["create"], ["list"], ["remove"])],
    ["admin"],
    *[["admin", name] for name in ("grant", "revoke", "list", "log")],
    *[["admin", name] for name in ("reset-password", "suspend", "unsuspend")],
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(" ".join(["Usage: reileta", *command]))
    assert "\x1b" not in said
    assert "\n  Examples:\n    reileta " in said
    assert " object at 0x" not in said


def test_help_lists_settings_and_commands_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["serve", "--help"])
    groups: dict[str, str] = {}
    title = ""
    for line in capsys.readouterr().out.splitlines():
        if line and not line.startswith(" "):
            title = line.rstrip(":")
        groups[title] = groups.get(title, "") + line
    assert {"Network", "Storage", "Logs", "Accounts", "Limits", "Instances"} <= groups.keys()
    assert "--port" in groups["Network"]
    assert "--log-level" in groups["Logs"]
    assert "--seat-grace-s" in groups["Instances"]
    cli.main(["--help"])
    said = capsys.readouterr().out
    assert "\nRun a server:\n  serve " in said
    assert "\nAccounts:\n  admin " in said


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["serve", "--help"])
    said = capsys.readouterr().out
    for name in Settings.model_fields:
        assert "--" + name.replace("_", "-") in said
        assert variable(name) in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command."),
        (["dance"], "No such command 'dance'."),
        (["serve", "--prot", "1"], "No such option: --prot"),
        (["serve", "--port"], "--port"),
        (["serve", "--port", "many"], "--port: should be a valid integer"),
        (["serve", "now"], "unexpected extra argument"),
        (["serve", "--rate-limits", "perhaps"], "--rate-limits: should be 'on' or 'off'"),
        (["serve", "--tls-key", "k.pem"], "--tls-cert and --tls-key must be used together"),
        (["serve", "--database", "sqlite:///x"], "--database: must begin with postgresql://"),
        (["bots", "create", "--tokens", "t"], "Missing option '--count'"),
        (["bots", "create", "--count", "0", "--tokens", "t"], "'--count'"),
        (["admin", "grant"], "Missing argument 'username'"),
        (["admin", "revoke"], "Missing argument 'username'"),
    ],
)
def test_wrong_use_gets_one_line_and_status_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("reileta: ")
    assert said in output.err
    assert output.err.count("\n") == 1


def test_serve_runs_the_server_with_the_settings_and_returns_its_status(
    server: Callable[[Run], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 7

    server(run)
    monkeypatch.setenv("REILETA_PORT", "4000")
    monkeypatch.setenv("REILETA_HOST", "::1")
    assert cli.main(["serve", "--port", "0", "--data", "/d", "--rate-limits", "off"]) == 7
    (settings,) = seen
    assert (settings.port, settings.host) == (0, "::1")
    assert (settings.data, settings.rate_limits) == (Path("/d"), "off")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StartupError("the data folder is in use"), "the data folder is in use"),
        (ExceptionGroup("n", [StartupError("newer schema")]), "newer schema"),
        (OSError(errno.EADDRINUSE, "x"), "127.0.0.1:3032 is already in use"),
    ],
)
def test_a_start_that_fails_gets_one_line_and_status_1(
    error: Exception,
    said: str,
    server: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_settings: Settings) -> int:
        raise error

    server(run)
    assert cli.main(["serve"]) == 1
    assert capsys.readouterr().err == f"reileta: {said}\n"


def test_a_defect_is_not_hidden(server: Callable[[Run], None]) -> None:
    def run(_settings: Settings) -> int:
        raise ExceptionGroup("n", [KeyError("ours")])

    server(run)
    with pytest.raises(ExceptionGroup):
        cli.main(["serve"])


def test_tls_files_are_looked_at_before_anything_starts(
    server: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Settings] = []

    def run(settings: Settings) -> int:
        started.append(settings)
        return 0

    server(run)
    assert cli.main(["serve", "--tls-cert", "/no/cert", "--tls-key", "/no/key"]) == 1
    assert "can't read /no/cert" in capsys.readouterr().err
    assert not started


def test_bots_get_their_tokens_written_to_a_private_file(
    tools: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens"
    vars(tools)["create_bots"] = lambda _settings, count, autopilot: [
        f"ua_{n}" for n in range(count)
    ]
    assert cli.main(["bots", "create", "--count", "2", "--tokens", str(file)]) == 0
    assert file.read_text() == "ua_0\nua_1\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    output = capsys.readouterr()
    assert output.out == ""
    assert "ua_" not in output.err


def test_a_file_that_exists_is_never_overwritten(
    tools: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    vars(tools)["create_bots"] = lambda _settings, count, autopilot: asked.append(count)
    older, link = tmp_path / "tokens", tmp_path / "link"
    older.write_text("ua_older\n")
    link.symlink_to(older)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "elsewhere")
    for file in (older, link, dangling):
        assert cli.main(["bots", "create", "--count", "2", "--tokens", str(file)]) == 1
        assert capsys.readouterr().err.startswith(f"reileta: {file} exists already")
    assert older.read_text() == "ua_older\n"
    assert not asked


def test_tokens_can_go_to_a_pipe(tools: types.ModuleType, tmp_path: Path) -> None:
    vars(tools)["create_bots"] = lambda _settings, count, autopilot: ["ua_1"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cli.main(["bots", "create", "--count", "1", "--tokens", str(pipe)]) == 0
        assert os.read(reader, 100) == b"ua_1\n"
    finally:
        os.close(reader)


def test_no_file_stays_when_no_accounts_could_be_made(
    tools: types.ModuleType, tmp_path: Path
) -> None:
    def create_bots(_settings: Settings, _count: int, *, autopilot: bool) -> list[str]:
        raise StartupError("the database is in use")

    vars(tools)["create_bots"] = create_bots
    file = tmp_path / "tokens"
    assert cli.main(["bots", "create", "--count", "2", "--tokens", str(file)]) == 1
    assert not file.exists()


def test_a_token_file_that_can_not_be_written_makes_no_accounts(
    tools: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []
    vars(tools)["create_bots"] = lambda _settings, count, autopilot: asked.append(count)
    file = tmp_path / "missing" / "tokens"
    assert cli.main(["bots", "create", "--count", "2", "--tokens", str(file)]) == 1
    said = f"reileta: can't use {file}: {os.strerror(errno.ENOENT)}\n"
    assert capsys.readouterr().err == said
    assert not asked


@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_granting_and_revoking_take_the_name_and_where_the_database_is(
    tools: types.ModuleType, command: str
) -> None:
    asked: list[tuple[Path, str]] = []

    def work(settings: Settings, username: str) -> bool:
        asked.append((settings.data, username))
        return True

    vars(tools)[f"{command}_admin"] = work
    assert cli.main(["admin", command, "ann", "--data", "/d"]) == 0
    assert asked == [(Path("/d"), "ann")]


@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_granting_to_nobody_is_status_1(
    tools: types.ModuleType, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    vars(tools)[f"{command}_admin"] = lambda _settings, _username: False
    assert cli.main(["admin", command, "nobody"]) == 1
    assert capsys.readouterr().err == "reileta: there is no user named nobody\n"


def test_the_main_admin_stays_one(
    tools: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_settings: Settings, _username: str) -> bool:
        raise UserCannotUpdate.field("tags", "the main admin always has avr:admin")

    vars(tools)["revoke_admin"] = refuse
    assert cli.main(["admin", "revoke", "admin"]) == 1
    assert capsys.readouterr().err == "reileta: the main admin always has avr:admin\n"


@pytest.mark.parametrize(
    "interrupt",
    [KeyboardInterrupt(), BaseExceptionGroup("nursery", [KeyboardInterrupt()])],
)
def test_an_interrupt_is_status_130(
    interrupt: BaseException, server: Callable[[Run], None]
) -> None:
    def run(_settings: Settings) -> int:
        raise interrupt

    server(run)
    assert cli.main(["serve"]) == 130


@pytest.mark.parametrize(
    "gateway",
    [
        "http://play.example",
        "play.example",
        "ws://",
        "ws://:80",
        "ws://play.example:99999",
        "ws://play.example:x",
        "ws://play.example:0",
        "ws://[::1",
        "ws://name:word@play.example",
        "ws://play.example?x=1",
        "ws://play.example#x",
        "ws://play example",
        "ws://" + "a" * 64,
    ],
)
def test_a_node_needs_the_address_of_a_gateway(
    gateway: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ins", "--gateway", gateway, "--token", "na_x"]) == 2
    assert capsys.readouterr().err.startswith("reileta: --gateway: must be wss:// or ws://")


def test_a_node_needs_a_token(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REILETA_NODE_TOKEN", raising=False)
    for given in ([], ["--token", "ua_x"]):
        assert cli.main(["ins", "--gateway", "ws://play.example/base", *given]) == 2
        assert "REILETA_NODE_TOKEN: must be the token of a node" in capsys.readouterr().err
