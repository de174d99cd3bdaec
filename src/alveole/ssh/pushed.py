"""What becomes of a push: a release of the branch that is deployed, or versions of an application.

To a site it is the branch alone. To an environment of an application it is the branch, as a version, and each tag that
came with it or by itself; to the incoming folder of an application, tags alone. What was dealt with is marked by refs
of ours, which no client sees or moves: a tag is sent once, whoever pushes next. Tags of a repository from before it
was one of an application are marked as they are: nobody pushed them as versions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from alveole import requests as ask
from alveole.agent import protocol
from alveole.errors import AlveoleError, Problem, Refused, Temporary
from alveole.journal import PROGRESS
from alveole.model.app import VERSION_NAME, App
from alveole.model.change import Change, ChangeState
from alveole.model.site import Arrival
from alveole.people.model import Actor
from alveole.printed import read_out
from alveole.services.incoming import INCOMING
from alveole.services.visits import GIT, GIT_DIRECTORY

if TYPE_CHECKING:
    from alveole.services import Services

#: The branch that is deployed; the second one where a repository has no first.
BRANCHES = ("main", "master")
_OURS = "refs/alveole/"
_MARK = "refs/alveole/deployed"
#: Where it is, tags are versions; a repository of a site, and one of an older Alvéole, has ``_MARK`` alone.
_VERSIONED = "refs/alveole/tags"
#: Below it, for each tag that was dealt with, the commit that it meant then.
_SEEN = "refs/alveole/versions/"
#: Of so many tags at once each is a version; of more it was not meant.
_TAGS_AT_ONCE = 5
_TAGS = "refs/tags/"
#: Of what a program prints otherwise.
_PIECE = 1 << 20
#: Bytes of tags as git lists them, some tens of thousands. Our marks, with longer names, take less than twice that.
_TAGS_MOST = 1 << 22


class Pushed:
    """``say``: each line goes to the pusher. ``stopped``: whether control is about to end."""

    def __init__(
        self, services: Services, actor: Actor, login: str, say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        self._services = services
        self._actor = actor
        self._login = login
        self._say = say
        self._stopped = stopped

    def carry_out(self) -> None:
        """Raises what went wrong: the push ends with it."""
        if self._login.endswith(INCOMING):
            app = self._services.apps.app(self._login.removesuffix(INCOMING))
            if app is None:
                raise Refused("the application is gone")
            if not self._send_tags(app, self._refs(_TAGS), _seen(self._refs(_OURS))):
                self._say(f"No new version: push a tag of {app.name}, such as v2.6.")
            return
        site = self._services.show_site(self._actor, self._login)
        of = self._services.apps.of_site(site.id)
        branch, commit = self._head()
        if of is not None:
            self._to_environment(of[0], branch, commit)
        elif not commit:
            self._say(f"Nothing is deployed: push to {BRANCHES[0]} for that.")
        elif commit == self._revision(_MARK):
            self._say(f"Nothing is deployed: {branch} is where it was.")
        else:
            self._deploy(branch, commit)

    # --- a site ---------------------------------------------------------------------------------
    def _deploy(self, branch: str, commit: str) -> None:
        site = self._services.show_site(self._actor, self._login)
        waits = site.on_push == Arrival.WAIT
        self._say(f"Deploying {branch} ({commit[:12]}) to {site.name}")

        def begin(upload: str) -> Change:
            request = ask.UpdateSite(
                upload=upload, format=protocol.ArchiveFormat.TAR, note=_note(commit), live=not waits
            )
            return self._services.update_site(self._actor, site.id, request)

        self._carried(commit, begin)
        self._mark({_MARK: commit})
        where = "" if waits else f": {self._services.show_site(self._actor, site.id).urls[0]}"
        self._say(f"{site.name} {'has a release that waits' if waits else 'is deployed'}{where}")

    def _carried(self, commit: str, begin: Callable[[str], Change]) -> None:
        """Pack a commit, begin a change with it and tell of that to its end. Raises what it failed with."""
        upload = self._services.new_upload(self._actor)
        try:
            self._archive(commit, Path(upload.path), upload.id)
            change = begin(upload.id)
        except BaseException:
            self._services.drop_upload(self._actor, upload.id)
            raise
        ended: Change | None = None
        for event in self._services.journal.follow(change.id, self._stopped):
            if isinstance(event, Change):
                ended = event
            elif event.level != PROGRESS and event.text:
                self._say(event.text)
        if ended is None:
            raise Temporary("the deployment did not end")
        if ended.state is not ChangeState.DONE:
            raise Refused(problems=ended.problems or (Problem("", "it failed"),))

    # --- an application ---------------------------------------------------------------------------
    def _to_environment(self, app: App, branch: str, head: str) -> None:
        tags, ours = self._refs(_TAGS), self._refs(_OURS)
        seen, marked = _seen(ours), ours.get(_MARK.removeprefix(_OURS))
        if marked and not seen and _VERSIONED.removeprefix(_OURS) not in ours:
            seen = self._leave_old(app, tags, head, marked)
        moved = bool(head) and head != marked
        if moved:
            self._send_head(app, branch, head, tags)
            seen |= _of(tags, head)
        if not self._send_tags(app, tags, seen) and not moved:
            self._say(f"No new version: push a tag, or {branch}.")

    def _leave_old(self, app: App, tags: dict[str, str], head: str, marked: str) -> dict[str, str]:
        """Mark the tags of a repository from before, but those of the head that are no version yet; the marked ones.

        Which of them came just now is not known: who means one that is marked is told how to send it.
        """
        new = {name for name in _of(tags, head) if self._services.apps.version(app.id, name) is None}
        old = {name: commit for name, commit in tags.items() if name not in new}
        self._mark({_VERSIONED: marked, **_marks(old)})
        if old:
            told = "to send one, delete it here and push it again"
            self._say(f"Tags that may have been here before are not sent ({len(old)}): {told}.")
        return old

    def _send_head(self, app: App, branch: str, commit: str, tags: dict[str, str]) -> None:
        """The branch as a version: named by the tag that came with it, else by the commit."""
        here = _of(tags, commit)
        names = [*(name for name in sorted(here) if re.match(VERSION_NAME, name)), f"git-{commit[:12]}"]
        if (there := next((name for name in names if self._is_there(app, name, commit)), None)) is not None:
            self._say(f"{branch} is version {there} of {app.name} already")
        else:
            self._say(f"Sending {branch} as version {names[0]}")
            self._send(app, names[0], commit)
        self._mark({_MARK: commit, _VERSIONED: commit, **_marks(here)})

    def _send_tags(self, app: App, tags: dict[str, str], seen: dict[str, str]) -> bool:
        """Each tag that is new, or means another commit than it did, as a version; whether there was one.

        Raises all that went wrong when each was tried: one that cannot be a version is told once, not at every push.
        """
        # By themselves: of a mark "a" and a new one "a/b" in one transaction git makes neither.
        self._update_refs(f"delete {_SEEN}{name}\0\0" for name in seen.keys() - tags.keys())
        fresh = {name: commit for name, commit in sorted(tags.items()) if seen.get(name) != commit}
        if len(fresh) > _TAGS_AT_ONCE:
            self._mark(_marks(fresh))
            hint = f"delete the tag here and push it alone, or: alveole app send {app.name}"
            raise Refused(f"{len(fresh)} tags came at once, and none of them was sent", field="tag", hint=hint)
        problems: list[Problem] = []
        for name, commit in fresh.items():
            if self._stopped():
                problems.append(Problem("tag", "control is about to end", "push once more in a moment"))
                raise Temporary(problems=problems)
            problems += self._send_tag(app, name, commit)
            self._mark(_marks({name: commit}))
        if problems:
            raise Refused(problems=problems)
        return bool(fresh)

    def _send_tag(self, app: App, name: str, commit: str) -> Iterable[Problem]:
        if not re.match(VERSION_NAME, name):
            return (Problem("tag", f"{name[:80]!r} is not a version", "call it like v2.6"),)
        if self._is_there(app, name, commit):
            self._say(f"The tag {name} is a version of {app.name} already")
            return ()
        self._say(f"Sending the tag {name} as a version")
        try:
            self._send(app, name, commit)
        except Temporary:
            raise
        except AlveoleError as error:
            return error.problems
        return ()

    def _is_there(self, app: App, name: str, commit: str) -> bool:
        """Whether another push has sent this commit by this name."""
        found = self._services.apps.version(app.id, name)
        return found is not None and found.note == _note(commit)

    def _send(self, app: App, version: str, commit: str) -> None:
        def begin(upload: str) -> Change:
            sent = ask.SendVersion(
                version=version, upload=upload, format=protocol.ArchiveFormat.TAR, note=_note(commit)
            )
            return self._services.send_version(self._actor, app.id, sent)

        self._carried(commit, begin)
        self._say(f"{app.name} has version {version}: alveole app show {app.name}")

    # --- git --------------------------------------------------------------------------------------
    def _head(self) -> tuple[str, str]:
        for branch in BRANCHES:
            if commit := self._revision(f"refs/heads/{branch}"):
                return branch, commit
        return BRANCHES[0], ""

    def _revision(self, name: str) -> str:
        words = (*GIT, "-C", GIT_DIRECTORY, "rev-parse", "-q", "--verify", f"{name}^{{commit}}")
        text = self._run(words, check=False).decode("ascii", "replace").strip()
        return text if _is_commit(text) else ""

    def _refs(self, below: str) -> dict[str, str]:
        """Names below a prefix, and the commit of each; what is no commit is left out. Raises ``Refused`` for too many:
        of a list that was cut nobody would know what is new."""
        form = "--format=%(refname) %(objecttype) %(objectname) %(*objecttype) %(*objectname)"
        most = _TAGS_MOST if below == _TAGS else 2 * _TAGS_MOST
        text = self._run((*GIT, "-C", GIT_DIRECTORY, "for-each-ref", form, below), most=most)
        if len(text) >= most:
            raise Refused("there are too many tags here to look at", field="tag", hint="delete those of long ago")
        found = {}
        # A name may hold what ``splitlines`` takes for the end of a line, and bytes that are no text.
        for line in text.decode("utf-8", "surrogateescape").split("\n"):
            name, *pairs = line.split(" ")
            for kind, commit in zip(pairs[::2], pairs[1::2], strict=False):
                if kind == "commit" and _is_commit(commit) and name.startswith(below):
                    found[name.removeprefix(below)] = commit
        return found

    def _mark(self, refs: dict[str, str]) -> None:
        self._update_refs(f"update {ref}\0{commit}\0\0" for ref, commit in refs.items())

    def _update_refs(self, orders: Iterable[str]) -> None:
        """All of them or none, by one program, however many there are (git-update-ref(1), ``-z``)."""
        if feed := "".join(orders).encode("utf-8", "surrogateescape"):
            self._run((*GIT, "-C", GIT_DIRECTORY, "update-ref", "--stdin", "-z"), feed=feed)

    def _archive(self, commit: str, path: Path, upload: str) -> None:
        words = ("/usr/bin/git", "-C", GIT_DIRECTORY, "-c", "tar.umask=0022", "archive", "--format=tar", "--prefix=./")
        written = 0
        with path.open("wb") as file:

            def take(piece: bytes) -> None:
                nonlocal written
                written += len(piece)
                self._services.check_upload(self._actor, upload, written)
                file.write(piece)

            self._run((*words, commit), take=take)

    def _run(
        self,
        argv: tuple[str, ...],
        *,
        feed: bytes = b"",
        most: int = _PIECE,
        take: Callable[[bytes], None] | None = None,
        check: bool = True,
    ) -> bytes:
        """Run git over the working copy as the site's own user; what it printed. Raises ``Refused`` when it fails."""
        program = self._services.start(self._services.over_work(self._actor, self._login, argv))
        printed = read_out(program, feed=feed, most=most, take=take)
        if check and printed.status != 0:
            raise Refused(f"git failed: {printed.complaint[:500]}")
        return printed.text


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and text.isascii() and text.isalnum()


def _note(commit: str) -> str:
    return f"git {commit[:12]}"


def _seen(ours: dict[str, str]) -> dict[str, str]:
    below = _SEEN.removeprefix(_OURS)
    return {name.removeprefix(below): commit for name, commit in ours.items() if name.startswith(below)}


def _marks(tags: dict[str, str]) -> dict[str, str]:
    return {_SEEN + name: commit for name, commit in tags.items()}


def _of(tags: dict[str, str], commit: str) -> dict[str, str]:
    return {name: each for name, each in tags.items() if each == commit}
