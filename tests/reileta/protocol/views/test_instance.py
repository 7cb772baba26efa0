from __future__ import annotations

import msgspec

from reileta.protocol.views.instance import (
    ModeratedView,
    StandingView,
    ban_view,
    entry_view,
    moderation_view,
    player_view,
)
from reileta.records import Ban, Moderation
from reileta.rules.instance.candidates import Entry
from reileta.rules.instance.seats import Player

HOME = "home.example"


def test_an_entry_leaves_out_what_it_has_not() -> None:
    waiting = entry_view(Entry("u_1@x.org", "waiting", 3, 5, None))
    assert msgspec.to_builtins(waiting) == {
        "user": "u_1@x.org",
        "state": "waiting",
        "position": 3,
        "since": 5,
    }
    admitted = msgspec.to_builtins(entry_view(Entry("u_1@x.org", "admitted", None, 5, 9)))
    assert (admitted["expires_at"], "position" in admitted) == (9, False)


def test_users_are_absolute() -> None:
    ban = ban_view(Ban("i_1", "u_1", None, "spam", "u_2@x.org", 5), HOME)
    assert (ban.user, ban.by, ban.until) == (f"u_1@{HOME}", "u_2@x.org", msgspec.UNSET)
    done = moderation_view(Moderation("i_1", "u_o", "mute", "u_1", "u_2", None, 9, 5), HOME)
    assert (done.user, done.by, done.until) == (f"u_1@{HOME}", f"u_2@{HOME}", 9)
    assert done.reason is msgspec.UNSET


def test_a_player_has_the_role_of_now() -> None:
    view = player_view(Player("p_1", "u_1@x.org", "s_1", "Ada", 5), "master")
    assert msgspec.to_builtins(view) == {
        "player": "p_1",
        "user": "u_1@x.org",
        "displayname": "Ada",
        "role": "master",
        "joined_at": 5,
    }


def test_events_leave_out_what_was_not_said() -> None:
    said = ModeratedView(type="unmute", user="u_1@x.org")
    assert msgspec.to_builtins(said) == {"type": "unmute", "user": "u_1@x.org"}
    assert msgspec.to_builtins(StandingView(2, entries=[])) == {"queued": 2, "entries": []}
