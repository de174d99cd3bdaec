"""Passwords as argon2id, and random secrets of which only the hash is kept.

m = 19 MiB, t = 2, p = 1: the first choice of the OWASP Password Storage Cheat Sheet (2024) that lets control stay
small. At most two are worked out at once, so that a storm of sign-ins costs 38 MiB and two cores and no more
(threat 25).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from alveole.errors import Problem, Temporary

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LEAST = 12
#: Longer ones are refused: argon2 would hash them all the same, and somebody would send megabytes.
MOST = 256
_AT_ONCE = threading.BoundedSemaphore(2)
_WAIT_SECONDS = 5.0


@cache
def _hasher() -> PasswordHasher:
    # Imported at the first sign-in: most lives of control see none.
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@cache
def _dummy() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


@contextlib.contextmanager
def _turn() -> Iterator[None]:
    if not _AT_ONCE.acquire(timeout=_WAIT_SECONDS):
        raise Temporary("too many people sign in at this moment", hint="try again in a few seconds")
    try:
        yield
    finally:
        _AT_ONCE.release()


def check_password(password: str, name: str = "", field: str = "password") -> tuple[Problem, ...]:
    """What is wrong with a new password. Length is what counts (NIST SP 800-63B §5.1.1.2): no classes of characters."""
    if len(password) < LEAST:
        return (Problem(field, f"has fewer than {LEAST} characters", "several words make a good one"),)
    if len(password) > MOST:
        return (Problem(field, f"has more than {MOST} characters"),)
    if len(set(password)) < 4 or (name and password.casefold() == name.casefold() * (len(password) // len(name))):
        return (Problem(field, "is too easy to guess", "several words make a good one"),)
    return ()


def hashed(password: str) -> str:
    """About 20 ms. Raises ``Temporary`` when no turn comes."""
    with _turn():
        return _hasher().hash(password)


def verified(stored: str | None, password: str) -> bool:
    """Whether ``password`` is the one behind ``stored``; as slow when there is none (threat 25).

    Raises ``Temporary`` when no turn comes.
    """
    from argon2.exceptions import InvalidHashError, VerificationError

    with _turn():
        try:
            return _hasher().verify(stored or _dummy(), password[: MOST + 1]) and stored is not None
        except (VerificationError, InvalidHashError):
            return False


def stale(stored: str) -> bool:
    """Whether it was hashed with other costs than today's."""
    return _hasher().check_needs_rehash(stored)


def secret(prefix: str) -> str:
    """``prefix`` and 256 random bits."""
    return prefix + secrets.token_urlsafe(32)


def digest(text: str) -> str:
    """What is kept of a :func:`secret`. Plain SHA-256: 256 random bits cannot be guessed, however fast."""
    return hashlib.sha256(text.encode()).hexdigest()


def csrf_of(session: str) -> str:
    """The token that a page of this session puts into its forms; derived, so that nothing more is kept."""
    return hmac.new(session.encode(), b"alveole csrf", hashlib.sha256).hexdigest()
