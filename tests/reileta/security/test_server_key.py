from __future__ import annotations

import base64
import os
import threading
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from reileta.rules.federation.signatures import (
    CHAIN_LENGTH,
    Link,
    encode,
    follows_chain,
    key_bytes,
    verify,
)
from reileta.security.server_key import ServerKey, adopt, load_known, load_or_create, prepare, renew
from reileta.startup import StartupError


def public(key: ServerKey) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.public_base64url + "="))


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "server.pem"
    first = load_or_create(path)
    assert load_or_create(path).public_base64url == first.public_base64url
    assert len(first.public_base64url) == 43
    assert [file.name for file in path.parent.iterdir()] == ["server.pem"]


def test_signatures_verify_with_the_public_half(tmp_path: Path) -> None:
    key = load_or_create(tmp_path / "key")
    signature = key.sign(b"data")
    public(key).verify(signature, b"data")
    with pytest.raises(InvalidSignature):
        public(key).verify(signature, b"other")


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_processes_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    start = threading.Barrier(8)
    keys: list[str] = []

    def load() -> None:
        start.wait()
        keys.append(load_or_create(path).public_base64url)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


def test_a_file_that_holds_no_such_key_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    other = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    for content in (b"", b"rubbish", other):
        path.write_bytes(content)
        with pytest.raises(StartupError, match="not an unencrypted Ed25519 key"):
            load_or_create(path)
        assert path.read_bytes() == content


def test_a_path_that_can_not_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="can't use the server's key"):
        load_or_create(tmp_path / "file" / "key")


HERE = "play.example.org"


def rotated(path: Path, now_ms: int = 1_000) -> ServerKey:
    """The server's key after a rotation."""
    prepare(path)
    return adopt(path, load_or_create(path), HERE, now_ms)


def test_a_database_that_knows_no_key_takes_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = load_known(path, None, HERE).public_base64url
    assert load_known(path, None, HERE).public_base64url == made
    assert load_known(path, made, HERE).public_base64url == made


def test_no_key_is_made_if_the_database_knows_one(tmp_path: Path) -> None:
    known = ServerKey.generate().public_base64url
    with pytest.raises(StartupError, match=r"key does not exist: restore .* key accept"):
        load_known(tmp_path / "key", known, HERE)
    assert names(tmp_path) == []


def test_a_key_that_the_database_does_not_know_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    content, known = path.read_bytes(), ServerKey.generate().public_base64url
    with pytest.raises(StartupError, match=f"not the one that the database knows, {known}: ") as no:
        load_known(path, known, HERE)
    assert "\n" not in str(no.value)
    assert path.read_bytes() == content
    path.write_text("nothing")
    with pytest.raises(StartupError, match="is not an unencrypted Ed25519 key"):
        load_known(path, known, HERE)


def test_a_key_that_follows_from_the_known_one_is_taken(tmp_path: Path) -> None:
    """The server was killed before the database learnt the new key, or has an older copy of it."""
    path = tmp_path / "key"
    keys = [load_or_create(path), rotated(path), rotated(path)]
    first, second, third = (key.public_base64url for key in keys)
    for known in (first, second, third):
        assert load_known(path, known, HERE).public_base64url == third
    with pytest.raises(StartupError, match="is not the one"):
        load_known(path, first, "elsewhere.example")


def test_an_earlier_key_than_the_known_one_is_refused(tmp_path: Path) -> None:
    """The file is from an old backup."""
    path, backup = tmp_path / "key", tmp_path / "backup"
    load_or_create(path)
    rotated(path)
    backup.write_bytes(path.read_bytes())
    newest = rotated(path).public_base64url
    with pytest.raises(StartupError, match="is not the one"):
        load_known(backup, newest, HERE)


def test_links_of_another_key_lead_nowhere(tmp_path: Path) -> None:
    path, other = tmp_path / "key", tmp_path / "other"
    known = load_or_create(path).public_base64url
    rotated(path)
    load_or_create(other)
    lines = path.read_bytes().partition(b"-----END PRIVATE KEY-----\n")[2]
    other.write_bytes(other.read_bytes() + lines)
    with pytest.raises(StartupError, match="is not the one"):
        load_known(other, known, HERE)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_new_key_waits_until_the_server_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    old = load_or_create(path)
    assert adopt(path, old, HERE, 1_000) is old
    made = prepare(path)
    assert load_or_create(path).public_base64url == old.public_base64url
    assert names(tmp_path) == ["key", "key.next"]
    assert (tmp_path / "key.next").stat().st_mode & 0o777 == 0o600
    new = adopt(path, old, HERE, 1_000)
    assert new.public_base64url == made != old.public_base64url
    assert names(tmp_path) == ["key"]
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = load_or_create(path)
    assert (loaded.public_base64url, loaded.links) == (made, new.links)
    assert verify(made, b"data", encode(loaded.sign(b"data")))


def test_the_old_key_signs_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    old = load_or_create(path)
    new = rotated(path)
    (link,) = new.links
    assert (link.public_key, link.since) == (new.public_base64url, 1_000)
    data = key_bytes(HERE, old.public_base64url, new.public_base64url, 1_000)
    assert verify(old.public_base64url, data, link.by)


def test_each_of_the_last_keys_leads_to_the_present_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys = [load_or_create(path), *(rotated(path) for _ in range(CHAIN_LENGTH + 1))]
    links = load_or_create(path).links
    assert len(links) == CHAIN_LENGTH
    assert [follows_chain(key.public_base64url, links, HERE) for key in keys] == [
        False,
        *[True] * (CHAIN_LENGTH + 1),
    ]
    assert not any(follows_chain(key.public_base64url, links, f"{HERE}:1") for key in keys[:-1])
    # The clock stood still, or went back.
    assert [link.since for link in links] == [*range(1_000 + CHAIN_LENGTH, 1_000, -1)]


def test_a_second_key_can_not_wait(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(StartupError, match="does not exist"):
        prepare(path)
    load_or_create(path)
    made = prepare(path)
    with pytest.raises(StartupError, match="waits already"):
        prepare(path)
    assert adopt(path, load_or_create(path), HERE, 1_000).public_base64url == made


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.parametrize("number", range(20))
def test_a_crash_at_any_moment_loses_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The server has the old key or the new one, and the next start ends what was begun."""
    path = tmp_path / "key"
    first = load_or_create(path)
    steps = 0

    def killed_at(name: str, real: object) -> object:
        def step(*args: object, **options: object) -> object:
            nonlocal steps
            steps += 1
            if steps > number:
                raise Killed(name)
            assert callable(real)
            return real(*args, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "link"):
            patch.setattr(f"os.{name}", killed_at(name, getattr(os, name)))
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, killed_at(name, getattr(Path, name)))
        try:
            prepare(path)
            adopt(path, first, HERE, 1_000)
        except Killed:
            pass
    loaded = load_or_create(path)
    assert loaded.public_base64url == first.public_base64url or loaded.links
    after = adopt(path, loaded, HERE, 2_000)
    if after.links:
        assert len(after.links) == 1
        assert follows_chain(first.public_base64url, after.links, HERE)
        assert after.links[0].public_key == after.public_base64url
    else:
        assert after.public_base64url == first.public_base64url
    again = load_or_create(path)
    assert (again.public_base64url, again.links) == (after.public_base64url, after.links)
    assert not path.with_name("key.next").exists()
    last = rotated(path, 3_000)
    assert follows_chain(first.public_base64url, last.links, HERE)


def test_a_new_key_that_can_not_be_used_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    old = load_or_create(path)
    content = path.read_bytes()
    path.with_name("key.next").write_bytes(b"rubbish")
    with pytest.raises(StartupError, match=r"key\.next is not an unencrypted Ed25519 key"):
        adopt(path, old, HERE, 1_000)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        "rubbish",
        "link: a 1 b",
        f"link: {'a' * 43} -1 {'b' * 86}",
        f"link: {'a' * 43} 1 {'b' * 85}",
        "\n".join([f"link: {'a' * 43} 1 {'b' * 86}"] * (CHAIN_LENGTH + 1)),
    ],
)
def test_a_file_with_wrong_lines_is_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    with path.open("a") as file:
        file.write(f"{line}\n")
    content = path.read_bytes()
    with pytest.raises(StartupError, match="wrong lines"):
        load_or_create(path)
    assert path.read_bytes() == content


def test_a_link_names_its_key_and_time(tmp_path: Path) -> None:
    path = tmp_path / "key"
    load_or_create(path)
    link = Link("a" * 43, 1_700_000_000_000, "b" * 86)
    with path.open("a") as file:
        file.write(f"link: {link.public_key} {link.since} {link.by}\n")
    assert load_or_create(path).links == (link,)


def test_processes_with_one_file_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = load_or_create(path)
    assert renew(path, first, HERE, 1_000) is first
    prepare(path)
    second = renew(path, first, HERE, 1_000)
    # Another process has the first key yet, and gets the third one at once.
    prepare(path)
    third = renew(path, first, HERE, 1_000)
    for key in (first, second):
        assert follows_chain(key.public_base64url, third.links, HERE)
        found = renew(path, key, HERE, 1_000)
        assert (found.public_base64url, found.links) == (third.public_base64url, third.links)


def test_a_file_with_a_key_that_does_not_follow_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "key"
    first = load_or_create(path)
    path.unlink()
    with pytest.raises(StartupError, match="does not exist"):
        renew(path, first, HERE, 1_000)
    load_or_create(path)
    with pytest.raises(StartupError, match="is not the one"):
        renew(path, first, HERE, 1_000)
