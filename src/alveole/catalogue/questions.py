"""One answer: cleaned up, checked, and said what is wrong with it. No module, no site: only values."""

from __future__ import annotations

import re
import secrets
import string
import unicodedata
from collections.abc import Sequence

from alveole.catalogue.manifest import Choice, CleanUp, Question, QuestionType, Text
from alveole.model.names import check_domain
from alveole.model.site import Answer

#: Asked once for a site, whatever its modules.
GENERIC: tuple[Question, ...] = (
    Question(
        name="admin_mail",
        type=QuestionType.EMAIL,
        title=Text(en="Mail address of who looks after the site", fr="Adresse de qui s'occupe du site"),
        description=Text(
            en="Programs show it in their pages and write their reports to it.",
            fr="Les programmes l'affichent dans leurs pages et y envoient leurs rapports.",
        ),
        default_from="'admin@' ~ (site.domain if '.' in site.domain else site.domain ~ '.localhost')",
    ),
    Question(
        name="version",
        type=QuestionType.CHOICE,
        title=Text(en="Development or production", fr="Développement ou production"),
        description=Text(
            en="In development programs show their errors and read their files at each request.",
            fr="En développement, les programmes montrent leurs erreurs et relisent leurs fichiers à chaque requête.",
        ),
        default="prod",
        choices=(
            Choice(value="prod", title=Text(en="Production", fr="Production")),
            Choice(value="dev", title=Text(en="Development", fr="Développement")),
        ),
    ),
    Question(
        name="optimisation",
        type=QuestionType.CHOICE,
        title=Text(en="How much traffic and data to be ready for", fr="Trafic et données attendus"),
        default="normal",
        choices=(
            Choice(value="normal", title=Text(en="Normal", fr="Normal")),
            Choice(value="big", title=Text(en="Big", fr="Gros")),
            Choice(value="huge", title=Text(en="Huge", fr="Énorme")),
        ),
    ),
)
PASSWORD_LENGTH = 24
MOST_CHARACTERS = 10_000
_ALPHABET = string.ascii_letters + string.digits
_YES, _NO = {"true", "yes", "on", "1", "y", "oui", "vrai"}, {"false", "no", "off", "0", "n", "non", "faux"}
_SIZE = re.compile(r"([0-9]{1,15})\s*([kmgt]?)(?:i?b)?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_NUMBER = (1 << 63) - 1
# What RFC 5321 §4.1.2 calls a dot-string, and a domain; quoted local parts exist, nobody has one.
_EMAIL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([A-Za-z0-9.-]+)\Z")
_PATH = re.compile(r"(?:/[A-Za-z0-9@_+,.-][A-Za-z0-9@_+,. -]{0,100}){1,20}\Z|/\Z")
# C0, DEL, C1, the separators that some readers take for line ends, the marks that reorder text, halves of pairs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_TEXTS = {QuestionType.STRING, QuestionType.PASSWORD, QuestionType.EMAIL, QuestionType.DOMAIN, QuestionType.PATH}


class Wrong(Exception):
    """Why an answer cannot be taken, and what to give instead. The message never holds a password."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def nothing(question: Question) -> Answer:
    """What a question without an answer is worth in a template."""
    if question.type in _TEXTS or question.type is QuestionType.CHOICE:
        return ""
    return () if question.type is QuestionType.CHOICES else None


def is_empty(value: object) -> bool:
    return value is None or value == "" or value == () or value == []


def new_password() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH))


def shown(question: Question, value: Answer) -> str:
    """``value`` for a person: stars for a password, ``64M`` for a size."""
    if question.type is QuestionType.PASSWORD:
        return "********" if value else ""
    if question.type is QuestionType.SIZE and isinstance(value, int):
        return size_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value)
    return "" if value is None else str(value)


def size_text(size: int) -> str:
    for unit in "tgmk":
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit.upper()}"
    return str(size)


def clean(question: Question, text: str) -> str:
    """``text`` after the clean-ups of the question, in their order. A password is never touched."""
    if question.type is QuestionType.PASSWORD:
        return text
    for step in question.clean:
        if step is CleanUp.STRIP:
            text = text.strip()
        elif step is CleanUp.LOWER:
            text = text.lower()
        elif step is CleanUp.COLLAPSE:
            text = " ".join(text.split())
        elif step is CleanUp.NO_SLASH:
            text = text.rstrip("/") or ("/" if text.startswith("/") else "")
        else:
            ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
            text = re.sub(r"[^a-z0-9]+", "-", ascii_only).strip("-")
    return text


def read(question: Question, raw: object) -> Answer:
    """``raw``, typed by a person or worked out, as the answer of ``question``. Raises :class:`Wrong`."""
    if isinstance(raw, list):
        raw = tuple(raw)
    if is_empty(raw):
        return _empty(question)
    value = _of_type(question, raw)
    if is_empty(value):
        return _empty(question)
    _in_bounds(question, value)
    if question.pattern:
        for text in value if isinstance(value, tuple) else (str(value),):
            if not re.fullmatch(question.pattern, text):
                says = question.pattern_says.en if question.pattern_says else f"it must match {question.pattern}"
                raise Wrong(f"{_show(question, text)} does not fit", says)
    return value


def _empty(question: Question) -> Answer:
    if question.required:
        raise Wrong("needs an answer", question.title.en)
    return nothing(question)


def _show(question: Question, value: object) -> str:
    return "this password" if question.type is QuestionType.PASSWORD else repr(value)


def _of_type(question: Question, raw: object) -> Answer:
    kind = question.type
    if kind is QuestionType.BOOLEAN:
        return _boolean(raw)
    if kind in (QuestionType.INTEGER, QuestionType.PORT):
        return _integer(raw)
    if kind is QuestionType.SIZE:
        return _size(raw)
    if kind is QuestionType.CHOICES:
        return _choices(question, raw)
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise Wrong(f"{_show(question, raw)} is not a text", "give a text")
    text = clean(question, _one_line(question, str(raw)))
    if not text:
        return ""
    if kind is QuestionType.CHOICE:
        return _one_of(question, text)
    if kind is QuestionType.EMAIL:
        return _email(text)
    if kind is QuestionType.DOMAIN:
        wrong = check_domain(text.lower())
        if wrong:
            raise Wrong(wrong[0].message, wrong[0].hint)
        return text.lower()
    if kind is QuestionType.PATH:
        if not _PATH.match(text) or ".." in text.split("/") or "." in text.split("/"):
            raise Wrong(f"{text!r} is not an absolute path", "write it like /data/files, without '.' and '..'")
        return text
    return text


def _one_line(question: Question, text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise Wrong(f"is {len(text):,} characters long; the limit is {MOST_CHARACTERS:,}", "shorten it")
    # A line feed at the end is what a paste or a file brings, unless it is meant: in a password nothing is cut.
    kept = text if question.type is QuestionType.PASSWORD else text.strip("\r\n\t ")
    found = _CONTROL.search(kept)
    if found:
        raise Wrong(f"holds the control character {found.group()!r}", "give one line of plain text")
    return kept


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise Wrong(f"{raw!r} is neither yes nor no", "answer yes or no")


def _integer(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        number = raw
    elif isinstance(raw, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", raw, re.ASCII):
        number = int(raw)
    else:
        raise Wrong(f"{raw!r} is not a whole number", "give digits")
    if abs(number) > _MOST_NUMBER:
        raise Wrong("is too large a number", "give a smaller one")
    return number


def _size(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        size = raw
    else:
        found = _SIZE.match(str(raw).strip())
        if not found:
            raise Wrong(f"{raw!r} is not a size", "write it like 64M, 1G, or as bytes")
        size = int(found.group(1)) * _UNITS[found.group(2).lower()]
    if not 0 <= size <= _MOST_NUMBER:
        raise Wrong(f"{raw!r} is not a size", "write it like 64M, 1G, or as bytes")
    return size


def _email(text: str) -> str:
    found = _EMAIL.match(text)
    if len(text) > 254 or not found or (check_domain(found.group(1).lower()) and found.group(1) != "localhost"):
        raise Wrong(f"{text!r} is not a mail address", "write it like name@example.org")
    return text


def _one_of(question: Question, text: str) -> str:
    values = [each.value for each in question.choices]
    if text in values:
        return text
    by_case = {value.lower(): value for value in values}
    if text.lower() in by_case:
        return by_case[text.lower()]
    raise Wrong(f"{text!r} is not one of the choices", "choose " + " or ".join(repr(value) for value in values))


def _choices(question: Question, raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = tuple(raw.split(","))
    if not isinstance(raw, Sequence):
        raise Wrong(f"{raw!r} is not a list", "give the choices with commas between them")
    taken = {_one_of(question, _one_line(question, str(each)).strip()) for each in raw if str(each).strip()}
    return tuple(each.value for each in question.choices if each.value in taken)


def _in_bounds(question: Question, value: Answer) -> None:
    low, high = question.min, question.max
    if question.type is QuestionType.PORT:
        low, high = (1 if low is None else low), (65_535 if high is None else high)
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        size, what, is_size = value, "", question.type is QuestionType.SIZE
    else:
        size, is_size = len(value or ""), False
        what = " choices" if isinstance(value, tuple) else " characters"

    def text(limit: int) -> str:
        return size_text(limit) if is_size else f"{limit}{what}"

    said = f"has {size}{what}" if what else f"{shown(question, value)} is out of range"
    if low is not None and size < low:
        raise Wrong(said, f"give at least {text(low)}")
    if high is not None and size > high:
        raise Wrong(said, f"give at most {text(high)}")
