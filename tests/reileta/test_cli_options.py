from __future__ import annotations

import inspect

import pytest

from reileta import cli_options
from reileta.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(cli_options.variable(name), raising=False)


def test_each_setting_has_an_option_and_a_variable() -> None:
    @cli_options.with_settings()
    def command(**given: str | None) -> int:
        return len(given)

    parameters = inspect.signature(command).parameters
    assert list(parameters) == list(Settings.model_fields)
    for name, parameter in parameters.items():
        (option,) = parameter.annotation.__metadata__
        assert cli_options.variable(name) in option.help


def test_a_commands_own_parameters_come_first_and_only_named_settings_follow() -> None:
    @cli_options.with_settings(["data", "database"])
    def command(*, count: int, **given: str | None) -> int:
        return count + len(given)

    assert list(inspect.signature(command).parameters) == ["count", "data", "database"]


def test_an_option_wins_over_the_environment_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cli_options.read({"port": None}).port == 3032
    monkeypatch.setenv("REILETA_PORT", "4000")
    assert cli_options.read({"port": None}).port == 4000
    assert cli_options.read({"port": "5000"}).port == 5000


def test_a_switch_takes_on_and_off() -> None:
    assert cli_options.read({"deflate": "on"}).deflate
    assert not cli_options.read({"deflate": "off"}).deflate


def test_wrong_options_are_named_as_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        cli_options.WrongUse, match=r"^--log-format: should be 'console' or 'json'$"
    ):
        cli_options.read({"log_format": "xml"})
    monkeypatch.setenv("REILETA_LOG_FORMAT", "xml")
    with pytest.raises(cli_options.WrongUse, match=r"^REILETA_LOG_FORMAT: should be"):
        cli_options.read({"log_format": None})
    with pytest.raises(cli_options.WrongUse, match=r"^--log-format: should be"):
        cli_options.read({"log_format": "yaml"})


def test_all_that_is_wrong_is_said_at_once_and_no_value_is_quoted() -> None:
    with pytest.raises(cli_options.WrongUse) as caught:
        cli_options.read({"port": "x", "database": "mysql://reileta:hunter2@localhost/x"})
    said = str(caught.value)
    assert "--port: " in said
    assert "--database: must begin with postgresql://" in said
    assert "hunter2" not in said


def test_what_two_options_do_to_each_other_is_said_of_both() -> None:
    with pytest.raises(
        cli_options.WrongUse, match=r"^--tls-cert and --tls-key must be used together$"
    ):
        cli_options.read({"tls_cert": "cert.pem"})
