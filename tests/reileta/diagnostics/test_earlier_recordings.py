"""Recordings made by earlier versions still replay to the state that they recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from reileta.diagnostics.recording import Called, RecordingReader
from reileta.diagnostics.replay import Replay

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.recording"))
"""Files by the version that wrote them. Never write one anew: add one for a new version."""


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_of_an_earlier_version_replays_to_its_end(path: Path) -> None:
    with path.open("rb") as file:
        replay = Replay(file)
        assert [
            call.differs for step in replay.steps() for call in step.calls if call.differs
        ] == []
        assert (replay.damage, replay.as_recorded) == (None, True)


def test_the_recordings_use_the_rules_under_their_earlier_names() -> None:
    used = set()
    for path in RECORDINGS:
        with path.open("rb") as file:
            used |= {record.rule for record in RecordingReader(file) if isinstance(record, Called)}
    assert used >= {"dismiss_moderator", "hand_over", "inherit", "lost", "name_moderator"}
