"""A change as it goes: each step as it is taken, how it ended, and where to go from there."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from alveole.api.gate import does
from alveole.model.change import ChangeState
from alveole.people.rights import Right
from alveole.web.pages import HEADERS, Asked, PageRoute
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
VERBS = {
    "create": N_("Create"),
    "start": N_("Start"),
    "stop": N_("Stop"),
    "restart": N_("Restart"),
    "sleep": N_("Fall asleep"),
    "wake": N_("Wake up"),
    "destroy": N_("Destroy"),
    "update": N_("New content"),
    "set": N_("Change settings"),
    "configure": N_("Change answers"),
    "claim-domain": N_("Claim a domain"),
    "drop-claim": N_("Take a claim back"),
    "claim-ended": N_("A claim has ended"),
    "prove-domain": N_("A domain is proven"),
    "rename": N_("Rename"),
    "move": N_("Move to another machine"),
    "confirm-move": N_("Remove copies that moves have left"),
    "export": N_("Write a passport"),
    "import": N_("Take a passport in"),
    "add-node": N_("Add a server"),
    "install-node": N_("Install Alvéole on a server"),
    "remove-node": N_("Remove a server"),
    "drain-node": N_("Empty a server"),
    "use-node": N_("Use a server again"),
    "trust-signer": N_("Trust a signer"),
    "distrust-signer": N_("Trust a signer no more"),
    "backup": N_("Save"),
    "restore": N_("Restore"),
    "delete-backup": N_("Delete a backup"),
    "create-app": N_("Create an application"),
    "destroy-app": N_("Take an application apart"),
    "set-app": N_("Change an application"),
    "give-app": N_("Give an application"),
    "add-environment": N_("Add an environment"),
    "set-environment": N_("Change an environment"),
    "send-version": N_("Send a version"),
    "accept-version": N_("Accept a version"),
    "refuse-version": N_("Refuse a version"),
    "forget-version": N_("Forget a version"),
    "deliver": N_("Deliver"),
    "approve": N_("Approve"),
    "deploy": N_("Deploy"),
    "rollback": N_("Roll back"),
    "repair": N_("Repair"),
    "exec": N_("Run a program"),
    "ssh": N_("Session by SSH"),
    "console": N_("Session in the console"),
    "files": N_("Change files"),
    "publish": N_("Publish the working copy"),
    "drop-work": N_("Throw the working copy away"),
    "add-key": N_("Add a key for SSH"),
    "remove-key": N_("Remove a key for SSH"),
    "sign-in-failed": N_("Failed sign-ins"),
    "sign-in": N_("Sign in"),
    "share": N_("Share"),
    "give": N_("Give"),
    "import-image": N_("Import an image"),
    "pull-image": N_("Fetch an image"),
    "upgrade-base": N_("Upgrade a base"),
    "rollback-base": N_("Take back a base"),
    "verify-bases": N_("Compare bases"),
    "prune-bases": N_("Drop unused bases"),
    "delete-base": N_("Delete a base"),
    "create-plan": N_("Create a plan"),
    "delete-plan": N_("Delete a plan"),
    "add-modules": N_("Add modules"),
    "set-password": N_("Change a password"),
    "add-account": N_("Add an account"),
    "set-account": N_("Change an account"),
    "remove-account": N_("Remove an account"),
    "create-token": N_("Make a token"),
    "delete-token": N_("Delete a token"),
    "end-session": N_("End a session"),
    "add-team": N_("Add a team"),
    "set-team": N_("Change a team"),
    "remove-team": N_("Remove a team"),
    "set-quota": N_("Change a quota"),
    "drop-quota": N_("Remove a quota"),
    "first-token": N_("Make the first token"),
    "invite": N_("Invite"),
    "add-factor": N_("Add a second factor"),
    "remove-factor": N_("Remove a second factor"),
    "recovery-codes": N_("Make recovery codes"),
    "require-second-factor": N_("Require a second factor"),
    "remove-modules": N_("Remove modules"),
    "set-ldap": N_("Change the directory (LDAP)"),
    "drop-ldap": N_("End the directory (LDAP)"),
    "set-oidc": N_("Change the provider (OIDC)"),
    "drop-oidc": N_("End the provider (OIDC)"),
    "operation": N_("Run an operation"),
    "add-operation": N_("Declare an operation"),
    "remove-operation": N_("Remove an operation"),
    "restart-process": N_("Start a process anew"),
    "signal": N_("End a program"),
    "check": N_("A check"),
    "add-check": N_("Change a check"),
    "remove-check": N_("Remove a check"),
    "set-check-secret": N_("Change a secret of checks"),
    "remove-check-secret": N_("Remove a secret of checks"),
    "add-channel": N_("Add a channel"),
    "set-channel": N_("Change a channel"),
    "remove-channel": N_("Remove a channel"),
    "set-mail": N_("Change the mail server"),
    "drop-mail": N_("End the mail server"),
}
_TAIL = 200


@router.get("/change/{change}")
@does(Right.CHANGE_LOOK)
def change(page: Asked, change: str, part: str = "", seen: str = "") -> Response:
    found = page.services.show_change(page.actor, change)
    ended = found.state in (ChangeState.DONE, ChangeState.FAILED)
    digest = f"{len(found.events)}-{found.state}-{round((found.progress or 0) * 100)}"
    if page.partial and part and seen == digest:
        return Response(status_code=204, headers=HEADERS)
    stored = page.services.store.sites.get(found.site_id or "")
    site = stored.site if stored is not None and page.may(Right.SITE_LOOK, stored.site.id) else None
    view = page.services.show_listed(page.actor, site.id) if site is not None else None
    of_site = page.services.apps.of_site(site.id) if site is not None else None
    app = of_site[0] if of_site is not None else page.services.apps.app(found.site_id or "")
    template = "part/change.html" if page.partial and part else "change.html"
    return page.show(
        template,
        change=found,
        events=found.events[-_TAIL:],
        earlier=max(0, len(found.events) - _TAIL),
        ended=ended,
        digest=digest,
        site=view,
        verbs=VERBS,
        app=app.name if app is not None else "",
    )
