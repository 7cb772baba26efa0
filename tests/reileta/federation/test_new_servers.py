"""How many servers become known in an hour."""

from __future__ import annotations

import pytest

from reileta.errors import Overloaded
from reileta.federation.new_servers import PER_DOMAIN, PER_NETWORK, NewServers
from tests.conftest import ManualClock

HOUR_S = 3600


def count(new: NewServers, addresses: list[str], networks: list[str] | None = None) -> int:
    """How many of them are admitted before one is not."""
    for number, address in enumerate(addresses):
        network = None if networks is None else networks[number % len(networks)]
        try:
            new.admit(address, network)
        except Overloaded:
            return number
    return len(addresses)


def test_one_domain_brings_few_servers_in_an_hour_from_any_network(clock: ManualClock) -> None:
    new = NewServers(clock)
    hosts = [f"x{number}.a{number}.evil.example:{number + 1024}" for number in range(100)]
    networks = [f"10.{number}.0.0/16" for number in range(100)]
    assert count(new, hosts, networks) == PER_DOMAIN.burst
    assert count(new, hosts) == 0
    with pytest.raises(Overloaded) as refused:
        new.admit(hosts[0])
    assert 0 < (refused.value.retry_after_s or 0) <= HOUR_S
    new.admit("good.example", networks[0])
    clock.advance(HOUR_S * 1000)
    assert count(new, hosts, networks) == PER_DOMAIN.burst


def test_one_network_brings_few_servers_in_an_hour_of_any_domain(clock: ManualClock) -> None:
    new = NewServers(clock)
    hosts = [f"evil{number}.example" for number in range(100)]
    assert count(new, hosts, ["10.0.0.0/16"]) == PER_NETWORK.burst
    new.admit("good.example", "10.1.0.0/16")
    new.admit("good2.example")


def test_a_server_that_its_domain_excludes_does_not_count_for_its_network(
    clock: ManualClock,
) -> None:
    new = NewServers(clock)
    hosts = [f"x{number}.evil.example" for number in range(100)]
    count(new, hosts)
    for host in hosts:
        with pytest.raises(Overloaded):
            new.admit(host, "10.0.0.0/16")
    new.admit("good.example", "10.0.0.0/16")


def test_without_limits_any_number_comes(clock: ManualClock) -> None:
    new = NewServers(clock, limited=False)
    assert count(new, [f"x{number}.evil.example" for number in range(1000)], ["n"]) == 1000
