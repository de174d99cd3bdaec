"""One method per verb a person uses. Every door (API, command line) goes through here.

Permission, grammar and every refusal are decided here; a door only parses and prints. Methods are
synchronous, safe from any thread and answer at once: what takes time is accepted as a
:class:`~alveole.model.change.Change` and carried out by the reconciler's threads. Follow it with
:meth:`Services.follow` or :meth:`Services.wait`.

``caller`` is the :class:`~alveole.requests.Actor` that the door has authenticated. ``site`` is a
name or an id. ``key`` is an idempotency key: the same key with the same request gives the same
change, with another request ``Refused``. ``version`` is the version (ETag) that the caller saw;
:class:`~alveole.services.core.VersionConflict` (a ``Refused``, HTTP 412) when the site has moved on.
All methods raise the errors of :mod:`alveole.errors`: ``Denied``, ``InvalidInput`` with all
problems, ``Refused``, ``NoRoom``, ``NotFound``, ``Temporary``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from alveole import requests as ask
from alveole import views
from alveole.config import Settings
from alveole.model.change import Change, Event
from alveole.ports import AgentPort
from alveole.requests import Actor

__all__ = ["Services"]


class Services:
    @classmethod
    def open(cls, settings: Settings, agent: AgentPort, *, loop: bool = True) -> Services:
        """Open the database (made and migrated when needed) and, with ``loop``, start the reconciler."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop the reconciler and close the database. Sites keep running."""
        raise NotImplementedError

    # --- who asks -----------------------------------------------------------------------------
    def authenticate(self, token: str) -> Actor | None:
        """The actor behind a token, or ``None`` (unknown, expired). Takes the same time either way."""
        raise NotImplementedError

    def create_token(self, caller: Actor, request: ask.CreateToken) -> views.TokenView:
        """The only answer that holds ``secret``."""
        raise NotImplementedError

    def list_tokens(self, caller: Actor) -> tuple[views.TokenView, ...]:
        raise NotImplementedError

    def delete_token(self, caller: Actor, token: str) -> None:
        """``token``: its id or its name."""
        raise NotImplementedError

    # --- uploads ------------------------------------------------------------------------------
    def new_upload(self, caller: Actor, expected_bytes: int | None = None) -> views.UploadView:
        """A fresh spool file (empty, 0600) for the API to write into; ``NoRoom`` when it cannot fit.

        Call :meth:`check_upload` now and then while writing; uploads not used within a day go.
        """
        raise NotImplementedError

    def check_upload(self, caller: Actor, upload: str, written: int) -> None:
        """``NoRoom`` when ``written`` bytes pass the ceiling of the settings or eat into the reserve."""
        raise NotImplementedError

    def drop_upload(self, caller: Actor, upload: str) -> None:
        """Discard it (an upload that was cut). Unknown ids are ignored."""
        raise NotImplementedError

    # --- sites --------------------------------------------------------------------------------
    def create_site(self, caller: Actor, request: ask.CreateSite, *, key: str | None = None) -> Change:
        raise NotImplementedError

    def preview_create(self, caller: Actor, request: ask.CreateSite) -> views.DryRun:
        """``--dry-run``: the same checks, nothing stored, the upload kept."""
        raise NotImplementedError

    def list_sites(self, caller: Actor) -> tuple[views.SiteView, ...]:
        """By name."""
        raise NotImplementedError

    def show_site(self, caller: Actor, site: str, *, show_env: bool = False) -> views.SiteView:
        raise NotImplementedError

    def start_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """``Refused`` when it is already running (wanted running)."""
        raise NotImplementedError

    def stop_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """``Refused`` when it is already stopped."""
        raise NotImplementedError

    def restart_site(self, caller: Actor, site: str, *, key: str | None = None, version: int | None = None) -> Change:
        """``Refused`` when it is stopped."""
        raise NotImplementedError

    def destroy_site(
        self,
        caller: Actor,
        site: str,
        request: ask.DestroySite,
        *,
        key: str | None = None,
        version: int | None = None,
    ) -> Change:
        """``Refused`` while it runs."""
        raise NotImplementedError

    def update_site(
        self, caller: Actor, site: str, request: ask.UpdateSite, *, key: str | None = None, version: int | None = None
    ) -> Change:
        raise NotImplementedError

    def set_site(
        self, caller: Actor, site: str, request: ask.SetSite, *, key: str | None = None, version: int | None = None
    ) -> Change:
        raise NotImplementedError

    def rename_site(
        self, caller: Actor, site: str, request: ask.RenameSite, *, key: str | None = None, version: int | None = None
    ) -> Change:
        raise NotImplementedError

    def site_logs(self, caller: Actor, site: str) -> views.LogsView:
        raise NotImplementedError

    def exec_site(self, caller: Actor, site: str, request: ask.ExecSite) -> views.ExecGrant:
        """Permission to run a program in the live instance; ``Refused`` when the site does not run."""
        raise NotImplementedError

    def exec_ended(self, grant: views.ExecGrant, exit_status: int | None, problem: str = "") -> None:
        """Close the journal's entry of a session."""
        raise NotImplementedError

    def why(self, caller: Actor, site: str) -> views.WhyView:
        raise NotImplementedError

    # --- backups ------------------------------------------------------------------------------
    def create_backup(self, caller: Actor, request: ask.CreateBackup, *, key: str | None = None) -> Change:
        """The id of the backup is ``change.result["backup"]`` from the start."""
        raise NotImplementedError

    def list_backups(self, caller: Actor, site: str | None = None) -> tuple[views.BackupView, ...]:
        """Newest first. ``site`` may be the name of a destroyed site."""
        raise NotImplementedError

    def restore_backup(
        self, caller: Actor, backup: str, request: ask.RestoreBackup, *, key: str | None = None
    ) -> Change:
        raise NotImplementedError

    def delete_backup(self, caller: Actor, backup: str, *, key: str | None = None) -> Change:
        raise NotImplementedError

    # --- plans, bases, images -----------------------------------------------------------------
    def list_plans(self, caller: Actor) -> tuple[views.PlanView, ...]:
        raise NotImplementedError

    def show_plan(self, caller: Actor, plan: str) -> views.PlanView:
        raise NotImplementedError

    def create_plan(self, caller: Actor, request: ask.CreatePlan) -> views.PlanView:
        raise NotImplementedError

    def delete_plan(self, caller: Actor, plan: str) -> None:
        """``Refused`` for built-in plans and for those that sites have."""
        raise NotImplementedError

    def list_bases(self, caller: Actor) -> tuple[views.BaseView, ...]:
        """Images are bases of the kind ``oci``."""
        raise NotImplementedError

    def import_image(self, caller: Actor, request: ask.ImportImage, *, key: str | None = None) -> Change:
        """The image's key is ``change.result["base"]`` once it is done; give it as ``base`` to create."""
        raise NotImplementedError

    def delete_base(self, caller: Actor, base: str, *, key: str | None = None) -> Change:
        """``base``: a key, a label or an image digest. ``Refused`` while sites have it."""
        raise NotImplementedError

    # --- the platform -------------------------------------------------------------------------
    def status(self, caller: Actor) -> views.StatusView:
        raise NotImplementedError

    def doctor(self, caller: Actor) -> views.DoctorView:
        raise NotImplementedError

    def authority(self, caller: Actor) -> str:
        """``alveole ca show``: the certificate of the internal authority (PEM)."""
        raise NotImplementedError

    def export(self, caller: Actor, kind: str) -> views.Exported:
        """``kind``: ``nginx`` or ``apache``: configuration for a proxy that stands in front."""
        raise NotImplementedError

    # --- the journal --------------------------------------------------------------------------
    def list_changes(self, caller: Actor, request: ask.ListChanges) -> tuple[Change, ...]:
        """Newest first, without their events."""
        raise NotImplementedError

    def show_change(self, caller: Actor, change: str) -> Change:
        """With its events."""
        raise NotImplementedError

    def wait(self, caller: Actor, change: str, seconds: float) -> Change:
        """Block until it ended, at most ``seconds``; then as :meth:`show_change`."""
        raise NotImplementedError

    def follow(self, caller: Actor, change: str, stop: Callable[[], bool] | None = None) -> Iterator[Event | Change]:
        """Its events so far, then each new one as it comes; last the ended change. Blocks between.

        An ``Event`` with level ``progress`` is a passing one (a share in ``seconds``); it is not kept.
        """
        raise NotImplementedError
