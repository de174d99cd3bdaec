"""Images that are fetched by name: to be a base, or together with the site that is made of one.

A site of an image that is still to be fetched is one change: its names and its number are reserved when the request is
accepted, the image is fetched, and the site is stored as what the image says it runs. Where that fails nothing stays
but the image.
"""

from __future__ import annotations

import re
import time

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.names import REPOSITORY, TAG
from alveole.model.resource import Action
from alveole.model.site import Base, BaseKind, Site
from alveole.people.model import Actor, Role
from alveole.people.rights import Right, may
from alveole.services.sites import SiteVerbs
from alveole.store import KnownBase, Stored, Transaction, new_id

#: Until the image is here: what it is, nobody knows.
_UNKNOWN = Base(BaseKind.OCI, f"oci-{'0' * 16}")


class ImageVerbs(SiteVerbs):
    def registries(self, caller: Actor) -> tuple[str, ...]:
        """Where the caller may fetch images from."""
        self._allow(caller, Right.CATALOGUE_LOOK)
        if not may(caller, Right.IMAGE_PULL):
            return ()
        return tuple(each.removeprefix("http://") for each in self.settings.images.registries)

    def pull_image(self, caller: Actor, request: ask.PullImage, *, key: str | None = None) -> Change:
        """Fetch an image by its name, to be a base. One at a time for each caller."""
        self._check_image(caller, request)
        self._need_room()

        def build(transaction: Transaction) -> Live:
            self._one_at_a_time(caller)
            work = Work(image=(request.registry, request.repository, request.tag))
            return self.journal.begin("pull-image", caller, reason=_named(request), work=work, transaction=transaction)

        return self._accept(caller, request.digest(), key, build)

    def _check_image(self, caller: Actor, request: ask.PullImage) -> None:
        self._allow(caller, Right.IMAGE_PULL)
        problems = []
        known = self.registries(caller)
        if request.registry not in known:
            hint = f"there is {', '.join(known)}" if known else "who runs the machine names some in its settings"
            problems.append(Problem("registry", f"images are not fetched from {request.registry[:80]!r}", hint))
        for field, pattern in (("repository", REPOSITORY), ("tag", TAG)):
            value = getattr(request, field)
            if not re.match(pattern, value) or len(value) > 255:
                problems.append(
                    Problem(field, f"{value[:60]!r} is no {field} of an image", "lower case, as in club/app")
                )
        if problems:
            raise InvalidInput(problems=problems)

    def _one_at_a_time(self, caller: Actor) -> None:
        if any(each.work.image is not None and each.change.actor_key == caller.key for each in self.journal.all_live()):
            raise Refused("you are fetching an image already", field="image", hint="wait for it to end")

    # --- with a site --------------------------------------------------------------------------
    def create_site(self, caller: Actor, request: ask.CreateSite, *, key: str | None = None) -> Change:
        """With ``image``: it is fetched first, in the same change."""
        image = request.image
        if image is None:
            return super().create_site(caller, request, key=key)
        owner = self._owner_for(caller, request.owner)

        def before() -> None:
            self._reserved(caller, request)
            self._check_shared_there(request)
            self._need_room()

        def build(transaction: Transaction) -> Live:
            self._one_at_a_time(caller)
            id = new_id("s")
            number = transaction.lease(id, self.addressing.capacity())
            site = msgspec.structs.replace(self._reserved(caller, request), id=id, number=number, owner=owner)
            self._check_quota(owner, site)
            transaction.insert_site(site, self._names(site), "create")
            work = Work(image=(image.registry, image.repository, image.tag), wanted=request)
            result: dict[str, str | int | float | None] = {"site": id}
            return self.journal.begin(
                "create", caller, site=site, reason=_named(image), work=work, result=result, transaction=transaction
            )

        return self._accept(caller, request.digest(), key, build, before)

    def preview_create(self, caller: Actor, request: ask.CreateSite, *, content: bool = False) -> views.DryRun:
        if request.image is None:
            return super().preview_create(caller, request, content=content)
        self._owner_for(caller, request.owner)
        site = msgspec.structs.replace(self._reserved(caller, request), base=_UNKNOWN)
        self._check_shared_there(request)
        words = (f"image/{_named(request.image)}", "workload/0", f"route/{site.name}.{self.settings.domain}")
        steps = tuple(views.StepView(action=str(Action.CREATE), resource=each, reason="missing") for each in words)
        return views.DryRun(site=self._view(Stored(site), None), steps=steps)

    def _reserved(self, caller: Actor, request: ask.CreateSite) -> Site:
        """The site as far as it is known before its image is here; raises everything that is wrong with it."""
        if request.image is None:
            raise InvalidInput("names no image", field="image")
        problems: list[Problem] = []
        try:
            self._check_image(caller, request.image)
        except InvalidInput as error:
            problems.extend(error.problems)
        for field in ("upload", "modules", "packages"):
            if getattr(request, field):
                problems.append(Problem(field, "is not for a site of an image"))
        if request.base not in ("host", ""):
            problems.append(Problem("base", "is given beside an image", "give one of the two"))
        # What the image itself may say is taken for said.
        stand_in = msgspec.structs.replace(
            request,
            image=None,
            base="host",
            upload=None,
            modules=(),
            packages=(),
            command=request.command or (() if request.processes else ("image",)),
            port=request.port or 1,
        )
        try:
            site = self._draft(caller, stand_in, _UNKNOWN)
        except InvalidInput as error:
            raise InvalidInput(problems=(*problems, *error.problems)) from None
        if problems:
            raise InvalidInput(problems=problems)
        return msgspec.structs.replace(site, base=self.loop.learn_host_base())

    def _flow_create(self, live: Live) -> None:
        if live.work.wanted is None or live.work.stored:
            super()._flow_create(live)
            return
        site = self._site_of(live)
        try:
            site = self._fetched(live, site, live.work.wanted)
        except AlveoleError as error:
            self._take_back_create(live, site, error.problems, error.code)
            return
        self._finish(live, site, attempts=3)

    def _fetched(self, live: Live, site: Site, request: ask.CreateSite) -> Site:
        """Fetch the image, and store the site as what it says."""
        registry, repository, tag = live.work.image or ("", "", "")
        image: protocol.Image = self.agent.call(protocol.PullImage(registry, repository, tag), say=live.show)
        live.say(f"{image.base.label}: {image.base.key}")
        with self.store.write() as transaction:
            transaction.put_base(KnownBase(image.base, time.time(), image))
        hit("services.image-kept")
        # Whether they may was asked when the request was accepted.
        actor = Actor(live.change.actor, Role.ADMIN, "image")
        wanted = msgspec.structs.replace(request, image=None, base=image.base.key)
        made = self._draft(actor, wanted, image.base, own=site)
        made = msgspec.structs.replace(
            made, id=site.id, number=site.number, owner=site.owner, version=site.version + 1, created_at=site.created_at
        )
        with self.store.write() as transaction:
            transaction.save_site(made, self._names(made))
            self.journal.save(live, transaction, msgspec.structs.replace(live.work, stored=True, wanted=None))
        self.loop.trigger("platform")
        return made


def _named(image: ask.PullImage) -> str:
    return f"{image.registry}/{image.repository}:{image.tag}"
