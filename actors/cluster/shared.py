"""What the nodes of a cluster share: facts, publications, revocations, notes about sessions.

`Shared` is one object for the node to hold. It hears of the cluster as a `MemberListener`, and the
node runs its loops.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from actors.cluster.facts import ClusterMember, FactsExchange
from actors.cluster.hub_relay import HubRelay, Receivers
from actors.cluster.lines import Lines
from actors.cluster.revocations import CredentialCache, DeletedUsers, Revocations
from actors.cluster.session_notes import SessionNotes
from actors.directory import Directory
from actors.resource.manager import ResourceManager
from actors.session.manager import SessionManager
from reileta.cluster.calls import Calls
from reileta.observability.metrics import Metrics
from reileta.rules.cluster.facts import Changes
from reileta.store.live_credentials import LiveCredentials


class SharingNode(Receivers, DeletedUsers, Protocol):
    """The node as other nodes act on it (`actors.node.Node`)."""

    def presence_changed(self, users: frozenset[str]) -> None:
        """These users came online or went offline by sockets at other nodes."""
        ...


class Shared:
    """All that a node shares with others. `bind` must be called before the loops run."""

    def __init__(
        self,
        member: ClusterMember,
        directory: Directory,
        metrics: Metrics,
        *,
        address: str,
        credentials: LiveCredentials,
    ) -> None:
        self.member = member
        self._directory = directory
        self._sessions: SessionManager
        self._node: SharingNode
        self._resources: ResourceManager
        self.lines: Lines | None = None
        self.calls: Calls | None = None
        """Calls of other nodes, and to them; None: they can't be called."""
        self.facts = FactsExchange(member, self._learn)
        self.hub = HubRelay(member, directory, metrics, address)
        self.notes = SessionNotes(member, directory)
        self.revocations = Revocations(member, directory, credentials)
        self.session_ended = self.revocations.session_ended
        self.token_revoked = self.revocations.token_revoked
        self.user_deleted = self.revocations.user_deleted
        self.tell_state = self.notes.tell_state
        self.tell_resource = self.notes.tell_resource
        self.tell_token = self.notes.tell_token
        directory.join_cluster(self.facts.tell, self.hub.sink_of)

    @property
    def node(self) -> str:
        """The id of this node."""
        return self.member.node

    def bind(self, node: SharingNode, sessions: SessionManager, resources: ResourceManager) -> None:
        """Sets the node that this is shared with others for."""
        self._node, self._sessions, self._resources = node, sessions, resources
        self.notes.tell_queue_here = resources.told_elsewhere
        self.hub.receivers = node
        self.notes.receiver = sessions
        self.revocations.bind(sessions, node)

    def keep_lines(self, calls: Calls) -> None:
        """Keeps each waiting line of a resource at one node."""
        self.calls = calls
        self.lines = Lines(self.member, calls, self._resources)
        self._resources.lines = self.lines

    def present(self, session_id: str) -> bool:
        """Whether a session has a socket at another node."""
        elsewhere = self._directory.sessions_elsewhere(session_id).values()
        return any(one.sockets for one in elsewhere)

    def use(self, cache: CredentialCache) -> None:
        """Sets the cache of authenticated tokens, which forgets what other nodes change."""
        self.revocations.use(cache)

    @property
    def loops(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """The loops by name; each runs until it is cancelled, and may be started again."""
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "facts": self.facts.run,
            "relayed publications": self.hub.run,
            "session notes": self.notes.run,
            "revocations": self.revocations.run,
        }
        if self.lines is not None:
            loops["lines"] = self.lines.run
        return loops

    # MemberListener

    def fell(self, was: str) -> None:
        """This process has fallen, and has a new id as a node."""
        self.facts.fell(was)
        self.hub.fell(was)
        self.notes.fell(was)
        self._nodes_changed()

    def node_gone(self, node: str) -> None:
        """Another node is gone."""
        self.facts.node_gone(node)
        self._nodes_changed()

    def node_seen(self, node: str) -> None:
        """Another node is there."""
        self.facts.node_seen(node)
        self._nodes_changed()

    def _nodes_changed(self) -> None:
        if self.lines is not None:
            self.lines.nodes_changed()

    def reconnected(self) -> None:
        """Messages may be missing."""
        self.facts.reconnected()
        self.hub.reconnected()
        self.revocations.reconnected()

    def _learn(self, changes: Changes) -> None:
        users = self._directory.learn(changes)
        if users:
            self._node.presence_changed(users)
        for change in changes:
            kind, _, name = change.key.partition("/")
            if kind == "session":
                here = bool(self._sessions.sockets(name))
                self._resources.session_moved(name, present=here or self.present(name))
                if change.before is None and name in self._sessions.recoveries:
                    self._sessions.seen_elsewhere(name)
