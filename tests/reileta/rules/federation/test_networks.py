from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reileta.rules.federation.networks import Networks, refusal

NONE = Networks()
INTERNAL_V4 = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
]
INTERNAL_V6 = [
    *("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23"),
    *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
    *("fec0::/10", "ff00::/8", "4000::/2"),
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2600::1", "2a00:1450::1", "2001:4860::8888"]


@given(st.data())
@pytest.mark.parametrize("network", [*INTERNAL_V4, *INTERNAL_V6])
def test_internal_addresses_are_refused(network: str, data: st.DataObject) -> None:
    internal = ip_network(network)
    chosen = data.draw(
        st.sampled_from([internal[0], internal[-1]]) | st.ip_addresses(network=internal)
    )
    if network == "::ffff:0:0/96":
        assert isinstance(chosen, IPv6Address)
        mapped = IPv4Address(int(chosen) & 0xFFFF_FFFF)
        assert refusal(chosen, 443, NONE) == refusal(mapped, 443, NONE)
    else:
        assert refusal(chosen, 443, NONE) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_in_all_its_forms(ip: IPv4Address) -> None:
    if ip.is_global:
        return
    assert refusal(ip, 443, NONE) is not None
    for prefix in ("::", "::ffff:", "64:ff9b::", "64:ff9b:1::"):
        assert refusal(ip_address(f"{prefix}{ip}"), 443, NONE) is not None
    assert refusal(IPv6Address((0x2002 << 112) | (int(ip) << 80)), 443, NONE) is not None
    assert refusal(IPv6Address((0x20010000 << 96) | int(ip)), 443, NONE) is not None


@given(st.ip_addresses())
def test_only_public_addresses_pass(ip: IPv4Address | IPv6Address) -> None:
    if refusal(ip, 443, NONE) is None:
        assert ip.is_global
        assert not ip.is_multicast


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_pass(ip: str) -> None:
    assert refusal(ip_address(ip), 443, NONE) is None


@pytest.mark.parametrize("port", [80, 443, 1024, 3032, 8443, 32768, 33060, 65535])
def test_ports_of_servers_pass(port: int) -> None:
    assert refusal(ip_address("8.8.8.8"), port, NONE) is None


@pytest.mark.parametrize(
    "port", [0, 1, 22, 25, 53, 81, 1023, 65536, 1433, 1521, 3306, 5432, 6379, 9200, 11211, 27017]
)
def test_other_ports_are_refused_everywhere(port: int) -> None:
    assert refusal(ip_address("8.8.8.8"), port, NONE) is not None
    assert refusal(ip_address("10.1.0.7"), port, Networks.parse("0.0.0.0/0,::/0")) is not None


def test_a_setting_allows_networks() -> None:
    allowed = Networks.parse("10.1.0.0/16, fd00::/8,::ffff:127.0.0.0/104")
    for ip in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "127.0.0.2", "::ffff:127.0.0.2"):
        assert ip_address(ip) in allowed
        assert refusal(ip_address(ip), 3032, allowed) is None
    for ip in ("10.2.0.1", "fc00::1", "::1", "::10.1.2.3", "64:ff9b::10.1.2.3"):
        assert refusal(ip_address(ip), 3032, allowed) is not None


@pytest.mark.parametrize("text", ["", " , ", ","])
def test_no_networks_are_allowed(text: str) -> None:
    assert not Networks.parse(text)


@pytest.mark.parametrize("text", ["10.1.0.1/16", "example.org", "10.0.0.0/33", "127.1"])
def test_a_wrong_network_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Networks.parse(text)
