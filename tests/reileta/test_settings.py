from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reileta.settings import Settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"REILETA_{name.upper()}", raising=False)


def test_every_setting_says_what_it_is_for() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_defaults_are_those_that_the_documentation_names() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.data) == ("127.0.0.1", 3032, Path("data"))
    assert settings.database is None
    assert settings.address is None
    assert not settings.secure


def test_the_environment_wins_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REILETA_PORT", "4000")
    assert Settings().port == 4000


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REILETA_PORT", "4000")
    assert Settings(port=5000).port == 5000


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REILETA_DATABASE", "")
    assert Settings().database is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 65536},
        {"port": -1},
        {"address": "example..org"},
        {"address": "127.1"},
        {"address": "[::ffff:192.0.2.1]"},
        {"address": "0.0.0.0:3032"},
        {"address": "[::]"},
        {"address": "example.org:0"},
        {"database": "mysql://localhost/x"},
        {"tls_cert": Path("cert.pem")},
        {"tls_key": Path("key.pem")},
        {"log_format": "xml"},
        {"trace_sample": 1.5},
        {"federation_allow": "10.1.0.1/16"},
        {"federation_insecure": "a.example,127.1"},
        {"no_such_setting": 1},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_a_certificate_with_its_key_makes_it_secure() -> None:
    assert Settings(tls_cert=Path("cert.pem"), tls_key=Path("key.pem")).secure


@pytest.mark.parametrize("text", ["PLAY.Example.org", "play.example.org.", "play.example.org:443"])
def test_the_address_is_canonical(text: str) -> None:
    assert Settings(address=text).address == "play.example.org"


def test_other_servers_are_named_in_lists() -> None:
    settings = Settings(
        federation_allow="10.1.0.0/16, fd00::/8", federation_insecure="B.example:80, 10.1.0.7:3032,"
    )
    assert ip_address("10.1.2.3") in settings.allowed_networks
    assert ip_address("10.2.2.3") not in settings.allowed_networks
    assert settings.insecure_servers == {"b.example", "10.1.0.7:3032"}
    assert not Settings().allowed_networks
    assert not Settings().insecure_servers


def test_a_cluster_needs_a_database_that_all_nodes_use() -> None:
    with pytest.raises(ValidationError, match="--nats needs --database"):
        Settings(nats="nats://nats:4222")
    with pytest.raises(ValidationError, match="--read-cache on can't be used with --nats"):
        Settings(nats="nats://nats:4222", database="postgresql://db/x", read_cache="on")
    settings = Settings(nats="nats://a:4222, tls://b", database="postgresql://db/x")
    assert settings.nats_urls == ("nats://a:4222", "tls://b")
    assert not settings.caches_reads
    assert Settings().nats_urls == ()


@pytest.mark.parametrize("url", ["http://nats", "nats:4222", "nats://a,", ""])
def test_nats_is_given_by_urls(url: str) -> None:
    with pytest.raises(ValidationError, match="must be URLs such as"):
        Settings(nats=url, database="postgresql://db/x")


@pytest.mark.parametrize("name", ["", "a b", "a.b", "ä", "x" * 33, "a>"])
def test_the_name_of_a_cluster_is_part_of_subjects(name: str) -> None:
    with pytest.raises(ValidationError):
        Settings(cluster=name)
