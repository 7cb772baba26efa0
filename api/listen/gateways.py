"""The headers of gateways, which a registry believes if they come from one (`rules/gateway.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from api.listen.request_head import RequestHead
from reileta.rules.gateway import Passed, is_proved, passed_by


class TrustedGateways:
    """Which requests come from a gateway, of those that a trusted proxy has sent.

    Args:
        secrets: a gateway knows one of them; none: every trusted proxy is believed.
        now_ms: the time that gateways and registries share.
    """

    def __init__(self, secrets: Sequence[bytes], now_ms: Callable[[], int]) -> None:
        self._secrets = secrets
        self._now_ms = now_ms

    @property
    def proves(self) -> bool:
        """Whether a request without a proof counts as one of the address that it comes from: what
        else it says of its client is not believed either."""
        return bool(self._secrets)

    def passed(self, head: RequestHead) -> Passed | None:
        """What the gateway says of the request; None if it is not one of a gateway, or its headers
        are not as they must be."""
        found = passed_by(head.headers)
        if found is None:
            return None
        passed, given = found
        if not self._secrets:
            return passed
        target, now_ms = head.path + (b"?" + head.query if head.query else b""), self._now_ms()
        proved = any(
            is_proved(given, secret, passed, head.method, target, now_ms)
            for secret in self._secrets
        )
        return passed if proved else None
