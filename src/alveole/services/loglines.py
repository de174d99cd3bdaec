"""What log lines say, counted for the rules: how many are grave, and how many hold words that a rule names.

Over the last five minutes, of what came since the last look: a file that nobody has written to costs one question to
the kernel. What a site prints, and what came for it by syslog; of the platform its own lines and the machine's. A line
that was there before control started is in no count.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from alveole.incidents.model import PLATFORM, About, Figure, Reading, ReadingSource, Rule
from alveole.incidents.readings import Found
from alveole.logbook import lines, places
from alveole.logbook.follow import Tail
from alveole.logbook.lines import Form
from alveole.logbook.model import LEVELS
from alveole.logbook.model import Source as Of

_EVERY = 30.0
#: Looks that are counted: five minutes.
_LOOKS = 10
_GRAVE = LEVELS.index("err")
_SHOWN = 200

_ERRORS = "Lines of the last five minutes that are errors or graver"
_WORDS = "Lines of the last five minutes that hold the words which the rule names as items"
FIGURES = (
    Figure(name="site.log-errors", title=_ERRORS, about=About.SITE, unit="lines"),
    Figure(name="site.log-lines", title=_WORDS, about=About.SITE, unit="lines", named=True),
    Figure(name="platform.log-errors", title=_ERRORS, about=About.PLATFORM, unit="lines"),
    Figure(name="platform.log-lines", title=_WORDS, about=About.PLATFORM, unit="lines", named=True),
)
#: What is counted beside words, which are never empty.
_ALL_GRAVE = ""


class _Row:
    """The lines of one site, or of the platform."""

    def __init__(self, tails: Iterable[Tail]) -> None:
        self._tails = tuple(tails)
        self._looks: deque[Counter[str]] = deque(maxlen=_LOOKS)
        self.last: dict[str, str] = {}

    def look(self, words: Iterable[str]) -> Counter[str]:
        """Take a look; gives how many lines of all looks that are kept were grave, and held each of ``words``."""
        wanted = [(word, word.lower().encode()) for word in words]
        found: Counter[str] = Counter()
        for tail in self._tails:
            for raw in tail.poll():
                self._count(raw, tail.place.form, wanted, found)
        self._looks.append(found)
        total: Counter[str] = Counter()
        for each in self._looks:
            total.update(each)
        self.last = {what: text for what, text in self.last.items() if total[what]}
        return total

    def _count(self, raw: bytes, form: Form, wanted: list[tuple[str, bytes]], found: Counter[str]) -> None:
        hits = []
        pattern = lines.words_for(_GRAVE, form)
        # Most lines are told by a first look in C.
        if (pattern is None or pattern.search(raw)) and lines.severity(lines.read(raw, form)[1]) <= _GRAVE:
            hits.append(_ALL_GRAVE)
        if wanted:
            low = raw.lower()
            hits += [word for word, text in wanted if text in low]
        for what in hits:
            found[what] += 1
            self.last[what] = lines.read(raw, form)[3][:_SHOWN]


class LogLines:
    """:meth:`take` one thread at a time."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        own = places.of_platform(logs, (Of.OWN, Of.HOST))
        # What strangers ask of no site is no trouble of ours.
        self._platform = _Row(Tail(each, whole=False) for each in own if each.form is not Form.REQUEST)
        self._sites: dict[str, _Row] = {}

    def take(self, running: Iterable[str], words: Mapping[str, Iterable[str]]) -> Found:
        """Take a look at these sites and the platform. ``words``: by the name of the figure."""
        known = set(running)
        for gone in self._sites.keys() - known:
            del self._sites[gone]
        found: dict[str, list[Reading]] = {figure.name: [] for figure in FIGURES}
        for id in sorted(known):
            if id not in self._sites:
                self._sites[id] = _Row(
                    Tail(each, whole=False) for each in places.of_site(self._logs, id, (Of.OUT, Of.IN))
                )
            self._read(self._sites[id], id, "site", words, found)
        self._read(self._platform, PLATFORM, "platform", words, found)
        return found

    @staticmethod
    def _read(
        row: _Row, subject: str, about: str, words: Mapping[str, Iterable[str]], found: dict[str, list[Reading]]
    ) -> None:
        named = sorted(set(words.get(f"{about}.log-lines", ())))
        counts = row.look(named)
        for figure, what in ((f"{about}.log-errors", _ALL_GRAVE), *((f"{about}.log-lines", each) for each in named)):
            count = counts[what]
            text = f"{count} lines of the last minutes, the last: {row.last.get(what, '')}" if count else ""
            found[figure].append(Reading(subject, float(count), what, text))


def words_of(rules: Iterable[Rule]) -> dict[str, list[str]]:
    """What the rules that look for words look for, by figure."""
    found: dict[str, list[str]] = {}
    for rule in rules:
        if rule.enabled:
            found.setdefault(rule.on, []).extend(rule.items)
    return found


def source(logs: Path, running: Callable[[], Iterable[str]], rules: Callable[[], Iterable[Rule]]) -> ReadingSource:
    """For :attr:`IncidentVerbs.readings`."""
    kept = LogLines(logs)
    return ReadingSource(FIGURES, lambda: kept.take(running(), words_of(rules())), _EVERY)
