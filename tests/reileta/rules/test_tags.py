from __future__ import annotations

from itertools import combinations

import pytest

from reileta.errors import PermissionDenied, TagUnknown
from reileta.rules.instance.access import ACCESS_TAGS
from reileta.rules.tags import INSTANCE_TAGS, SERVICE_TAGS, USER_TAGS, WORLD_TAGS, TagVocabulary


def test_defaults_are_added_where_a_group_has_none() -> None:
    assert INSTANCE_TAGS.resolve([], admin=False) == {"avr:public"}
    assert WORLD_TAGS.resolve(["avr:release"], admin=False) == {"avr:public", "avr:release"}
    assert WORLD_TAGS.resolve(["avr:private"], admin=False) == {"avr:private"}
    assert USER_TAGS.resolve([], admin=False) == frozenset()


def test_of_tags_that_exclude_each_other_the_strictest_stays() -> None:
    for first, second in combinations(ACCESS_TAGS, 2):
        assert INSTANCE_TAGS.resolve([first, second], admin=False) == {second}
        assert INSTANCE_TAGS.resolve([second, first], admin=False) == {second}
    assert INSTANCE_TAGS.resolve(ACCESS_TAGS, admin=False) == {"avr:private"}
    both = ["avr:release", "avr:private", "avr:development", "avr:public"]
    assert WORLD_TAGS.resolve(both, admin=False) == {"avr:private", "avr:release"}


def test_the_published_clients_spelling_is_taken() -> None:
    for before in ((), ["avr:private", "avr:development"]):
        tags = WORLD_TAGS.resolve(["avr:develepement"], admin=False, before=before)
        assert tags == {"avr:public", "avr:development"}
    with pytest.raises(TagUnknown):
        INSTANCE_TAGS.resolve(["avr:develepement"], admin=False)


def test_unknown_tags_are_named_and_bounded() -> None:
    with pytest.raises(TagUnknown) as caught:
        INSTANCE_TAGS.resolve(["avr:publik", "avr:release"], admin=True)
    assert len(caught.value.details) == 2
    with pytest.raises(TagUnknown) as caught:
        WORLD_TAGS.resolve([f"{n}" * 1000 for n in range(100)], admin=True)
    assert len(caught.value.details) == 8
    assert all(len(detail.message) < 100 for detail in caught.value.details)


@pytest.mark.parametrize(
    ("vocabulary", "tag"),
    [
        (INSTANCE_TAGS, "avr:official"),
        (INSTANCE_TAGS, "avr:permanent"),
        (WORLD_TAGS, "avr:official"),
        (USER_TAGS, "avr:admin"),
        (SERVICE_TAGS, "avr:official"),
    ],
)
def test_admins_alone_set_and_remove_theirs(vocabulary: TagVocabulary, tag: str) -> None:
    resolve = vocabulary.resolve
    assert tag in resolve([tag], admin=True)
    with pytest.raises(PermissionDenied):
        resolve([tag], admin=False)
    with pytest.raises(PermissionDenied):
        resolve([], admin=False, before=[tag])
    assert tag in resolve([tag], admin=False, before=[tag])
    assert tag not in resolve([], admin=True, before=[tag])


def test_its_schema_says_which_there_are() -> None:
    assert WORLD_TAGS.schema()["items"]["enum"] == sorted(WORLD_TAGS.known)
