"""The life cycle and windows of time, and signatures of minisign, without anything that runs."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from alveole.errors import InvalidInput, Refused
from alveole.model.app import (
    App,
    Approval,
    DeliveryPolicy,
    Deployment,
    Environment,
    Stage,
    Version,
    VersionState,
    check_window,
    is_open,
)
from alveole.policy.lifecycle import may_deploy, may_enter
from alveole.trust import signatures

DIGEST = f"sha256:{'0' * 64}"
SITE = "s" + "a" * 12
PROD = Environment("prod", SITE, DeliveryPolicy(soak_seconds=100, approvals=2))
APP = App("a1", "shop", "p1", SITE, 1, (Environment("alpha", SITE), Environment("demo", SITE), PROD))
VERSION = Version("v1", "a1", "2.6", VersionState.ACCEPTED, DIGEST, DIGEST, 1, 1, 0.0, "ana")


def ran(live_at: float, stage: Stage = Stage.LIVE, **more: object) -> Deployment:
    return Deployment("d1", "a1", "demo", SITE, "v1", "2.6", stage, DIGEST, 0.0, "ana", "c1", live_at=live_at, **more)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ((), "has not run in DEMO"),
        ((ran(950.0),), "has run 50 s of 100 s in DEMO"),
        ((ran(800.0),), ""),
        ((ran(800.0, Stage.LEFT, left_at=850.0),), "has run 50 s"),
        ((ran(700.0, Stage.LEFT, left_at=850.0),), ""),
        ((ran(700.0, Stage.LEFT, left_at=850.0, went_back=True),), "was rolled back in DEMO"),
        ((ran(800.0), ran(100.0, Stage.LEFT, left_at=150.0, went_back=True)), ""),
        ((ran(100.0, Stage.FAILED, left_at=900.0, went_back=True),), "was rolled back"),
    ],
)
def test_a_version_enters_after_the_environment_before(history: tuple[Deployment, ...], said: str) -> None:
    found = may_enter(APP, PROD, VERSION, history, 1000.0)
    assert bool(found) == bool(said) and all(said in each.message for each in found)


def test_the_first_environment_takes_what_was_accepted() -> None:
    assert may_enter(APP, APP.environments[0], VERSION, (), 0.0) == ()
    for state in (VersionState.WAITING, VersionState.REFUSED):
        waiting = Version("v1", "a1", "2.6", state, DIGEST, DIGEST, 1, 1, 0.0, "ana")
        assert may_enter(APP, APP.environments[0], waiting, (), 0.0)


def test_approvals_are_of_others_and_of_two_people() -> None:
    def delivered(*keys: str) -> Deployment:
        return ran(0.0, Stage.DELIVERED, approvals=tuple(Approval(key, key, 0.0) for key in keys))

    for keys, enough in (((), False), (("b",), False), (("a", "b"), False), (("b", "b"), False), (("b", "c"), True)):
        assert (may_deploy(PROD, delivered(*keys), "a", 0.0) == ()) is enough, keys


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    # 1970-01-01 was a Thursday.
    noon, day = 12 * 3600.0, 86_400.0
    for text, open_on in (
        ("mon-fri 08:00-18:00", "thu fri mon tue wed"),
        ("fri-mon 08:00-24:00", "fri sat sun mon"),
        ("thu 11:59-12:01", "thu"),
        ("thu 12:01-13:00", ""),
    ):
        assert not check_window(text)
        days = ("thu", "fri", "sat", "sun", "mon", "tue", "wed")
        assert [name for at, name in enumerate(days) if is_open((text,), noon + at * day)] == [
            name for name in days if name in open_on.split()
        ]
    assert is_open((), noon) and not is_open(("mon 00:00-01:00",), noon)
    for text in ("always", "mon-fri 18:00-08:00", "xxx 08:00-09:00", "mon 08:00-24:30", "mon-fri 8:00-9:00", ""):
        assert check_window(text), text
    monkeypatch.undo()
    time.tzset()


# --- signatures -----------------------------------------------------------------------------------
class Signer:
    """Signs as minisign does: https://jedisct1.github.io/minisign/#signature-format."""

    def __init__(self) -> None:
        self.key, self.id = Ed25519PrivateKey.generate(), os.urandom(8)
        public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        line = base64.b64encode(b"Ed" + self.id + public).decode()
        self.public = f"untrusted comment: minisign public key\n{line}\n"

    def sign(self, data: bytes, comment: str = "timestamp:1", kind: bytes = b"ED") -> str:
        own = self.key.sign(hashlib.blake2b(data).digest() if kind == b"ED" else data)
        whole = base64.b64encode(self.key.sign(own + comment.encode())).decode()
        first = base64.b64encode(kind + self.id + own).decode()
        return f"untrusted comment: signature\n{first}\ntrusted comment: {comment}\n{whole}\n"


def test_only_a_known_key_over_these_bytes_is_a_signature() -> None:
    signer, other = Signer(), Signer()
    keys = (signatures.line_of(other.public), signatures.line_of(signer.public))
    good = signer.sign(b"data")
    assert signatures.verify(io.BytesIO(b"data"), good, keys) == keys[1]
    changed = good.replace("timestamp:1", "timestamp:2")
    for data, text, known in ((b"Data", good, keys), (b"data", changed, keys), (b"data", good, keys[:1])):
        with pytest.raises(Refused):
            signatures.verify(io.BytesIO(data), text, known)
    for text in (
        "",
        "x",
        good[:-5],
        good * 2,
        signer.sign(b"data", kind=b"Ed"),
        good.replace("untrusted", "trusted", 1),
    ):
        assert signatures.check(text), text
    for text in ("", "RWx", "untrusted comment: only", base64.b64encode(b"Ed" + bytes(39)).decode()):
        with pytest.raises(InvalidInput):
            signatures.key_of(text)
