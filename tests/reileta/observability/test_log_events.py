from __future__ import annotations

import re

from reileta.observability import log_events

NAMES = {name: value for name, value in vars(log_events).items() if name.isupper()}


def test_names_are_noun_and_what_happened() -> None:
    assert NAMES
    for value in NAMES.values():
        assert re.fullmatch(r"[a-z]+(\.[a-z_]+)+", value), value


def test_no_two_events_share_a_name() -> None:
    assert len(set(NAMES.values())) == len(NAMES)
