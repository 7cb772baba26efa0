"""A client of Reileta, the realtime instance server for social VR, for asyncio and Trio."""

from reileta_client.client import Client, Standing, connect
from reileta_client.connection import Connection
from reileta_client.credentials import CredentialKeeper, Credentials
from reileta_client.errors import (
    Detail,
    Disconnected,
    ErrorCode,
    ProtocolError,
    QueueEnded,
    Refused,
    ReiletaError,
    TimedOut,
)
from reileta_client.http import Http
from reileta_client.merge_patch import merged
from reileta_client.room import Player, Room
from reileta_client.session import SessionSocket, Watched

__all__ = [
    "Client",
    "Connection",
    "CredentialKeeper",
    "Credentials",
    "Detail",
    "Disconnected",
    "ErrorCode",
    "Http",
    "Player",
    "ProtocolError",
    "QueueEnded",
    "Refused",
    "ReiletaError",
    "Room",
    "SessionSocket",
    "Standing",
    "TimedOut",
    "Watched",
    "connect",
    "merged",
]
