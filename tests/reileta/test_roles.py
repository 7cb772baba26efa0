from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from reileta.roles import EtaUrl, etas_of, roles_of
from reileta.security.gateway_secret import read_gateway_secrets
from reileta.settings import Settings
from reileta.startup import StartupError

CLUSTER = {"nats": "nats://localhost", "database": "postgresql://localhost/x"}
ETA = {"eta": "http://10.0.0.7:3032"}


def test_roles() -> None:
    assert roles_of("all") == {"eta", "reil", "ins"}
    assert roles_of("ins, eta") == {"eta", "ins"}
    for wrong in ("", "etc", "eta,eta", "all,eta", "eta,", "Eta"):
        with pytest.raises(ValueError, match="must be all, or some of eta, reil and ins"):
            roles_of(wrong)


def test_urls_of_registries() -> None:
    assert etas_of("http://a, https://[fd00::1]:444") == (
        EtaUrl(False, "a", 80),
        EtaUrl(True, "fd00::1", 444),
    )
    assert str(EtaUrl(True, "fd00::1", 444)) == "https://[fd00::1]:444"
    for wrong in (
        "",
        "a:80",
        "http://a/path",
        "http://u:p@a",
        "http://a:0",
        "http://a,http://a:80",
    ):
        with pytest.raises(ValueError, match="must"):
            etas_of(wrong)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"role": "eta,reil,ins"},
        CLUSTER,
        {**CLUSTER, "role": "ins"},
        {**CLUSTER, "role": "eta,reil"},
        {**CLUSTER, "role": "reil,ins", **ETA, "gateway_address": "eu.example.org"},
        {**CLUSTER, "role": "eta", "trusted_proxies": "10.0.0.0/8", "gateway_secret": "x"},
    ],
)
def test_sets_that_fit(settings: dict[str, Any]) -> None:
    assert Settings(**settings).roles


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"role": "eta"}, "needs --nats"),
        ({"role": "reil,ins", **ETA}, "needs --nats"),
        ({**CLUSTER, "role": "reil"}, "needs --eta"),
        ({**CLUSTER, "role": "reil,eta", **ETA}, "--eta is only for"),
        ({**ETA}, "--eta is only for"),
        ({**CLUSTER, "role": "reil", **ETA, "eta_ca": "x"}, "--eta-ca is only for"),
        ({**CLUSTER, "role": "eta"}, "needs --trusted-proxies"),
        ({"gateway_secret": "x"}, "--gateway-secret is only for"),
        ({**CLUSTER, "role": "ins", "gateway_secret": "x"}, "--gateway-secret is only for"),
        ({**CLUSTER, "role": "ins", "gateway_address": "x.org"}, "--gateway-address is only for"),
    ],
)
def test_sets_that_don_t(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(**settings)


def test_a_secret_is_long_enough(tmp_path: Any) -> None:
    file = tmp_path / "secret"
    with pytest.raises(StartupError, match="can't read"):
        read_gateway_secrets(file)
    file.write_text("short")
    with pytest.raises(StartupError, match="at least 32"):
        read_gateway_secrets(file)
    file.write_text("x" * 32 + "\n")
    assert read_gateway_secrets(file) == (b"x" * 32,)
    assert read_gateway_secrets(None) == ()


def test_while_one_secret_replaces_another_there_are_two(tmp_path: Any) -> None:
    file = tmp_path / "secret"
    file.write_text(f"\n {'x' * 32}\r\n\n{'y' * 40}\n")
    assert read_gateway_secrets(file) == (b"x" * 32, b"y" * 40)
    for text in ("", "\n\n", f"{'x' * 32}\nshort\n"):
        file.write_text(text)
        with pytest.raises(StartupError, match="at least 32"):
            read_gateway_secrets(file)
