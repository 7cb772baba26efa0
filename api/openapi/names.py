"""The names of schemas, which become the names of types in clients that are generated.

The names follow from those of the Python types: `UserView` is published as `User`, and
`ListView[UserView]` as `UserList`. `RENAMED` holds the types that need another name.
"""

from __future__ import annotations

import re
from typing import Final

RENAMED: Final = {
    "CandidateView": "CandidateChange",
    "DataView": "PlayerData",
    "DetailView": "ErrorDetail",
    "EntryView": "QueueEntry",
    "ErrorView": "ErrorInfo",  # many languages have an `Error` of their own
    "LeftView": "PlayerLeft",
    "LoginView": "LoginResult",  # `Login` is the input
    "ModeratedView": "ModerationNotice",
    "NothingView": "Empty",
    "PlaceView": "LeftInstance",
    "PlayerInsideView": "Player",
    "ResourcesAnswer": "ResourceListAnswer",
    "RetainedView": "RetainedValue",
    "RoleView": "RoleChange",
    "SessionEntry": "UserSession",
    "StandingView": "QueueStanding",
    "TopicView": "Subscription",
    "WelcomeView": "Welcome",
}
_LIST: Final = re.compile(r"ListView_(\w+)_")


def published(name: str) -> str:
    """The published name of a Python type's schema."""
    of = _LIST.fullmatch(name)
    if of is not None:
        return f"{published(of[1])}List"
    return RENAMED.get(name, name.removesuffix("View"))


def pascal(name: str) -> str:
    """`instance-join` and `instance_join` as `InstanceJoin`."""
    return "".join(part.capitalize() for part in re.split("[-_]", name))
