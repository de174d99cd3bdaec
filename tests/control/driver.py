"""Control in a process of its own, for tests that kill it: ``driver.py CONFIG-JSON SCRIPT``.

Prints one line for each request that was acknowledged. The agent is behind the real socket.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from alveole import requests as ask
from alveole.agent.client import AgentClient
from alveole.config import parse
from alveole.model.change import Change
from alveole.people.model import Actor, Role
from alveole.requests.backups import OpenBackup
from alveole.services import Services

ROOT = Actor("root", Role.ADMIN)


def main() -> None:
    settings = parse(json.loads(sys.argv[1]))
    services = Services.open(settings, AgentClient(settings.agent_socket))

    def upload(content: bytes) -> str:
        view = services.new_upload(ROOT)
        Path(view.path).write_bytes(content)
        return view.id

    def go(change: Change) -> Change:
        print(change.id, flush=True)
        ended = services.wait(ROOT, change.id, 30)
        assert ended.state == "done", ended
        return ended

    def create() -> None:
        go(services.create_site(ROOT, ask.CreateSite(name="new", upload=upload(b"new")), key="create"))

    def update() -> None:
        go(services.update_site(ROOT, "app", ask.UpdateSite(upload=upload(b"two"))))

    def destroy() -> None:
        go(services.stop_site(ROOT, "app"))
        go(services.destroy_site(ROOT, "app", ask.DestroySite(confirm="app")))

    def backup() -> None:
        made = str(go(services.create_backup(ROOT, ask.CreateBackup(site="app"))).result["backup"])
        go(services.restore_backup(ROOT, made, ask.RestoreBackup()))
        go(services.restore_backup(ROOT, made, ask.RestoreBackup(name="copy")))
        go(services.delete_backup(ROOT, made))

    def change() -> None:
        go(services.set_site(ROOT, "app", ask.SetSite(env={"A": "2"})))
        go(services.restart_site(ROOT, "app"))
        go(services.rename_site(ROOT, "app", ask.RenameSite(name="other")))

    def past() -> None:
        made = str(go(services.create_backup(ROOT, ask.CreateBackup(site="app"))).result["backup"])
        day = str(go(services.open_backup_beside(ROOT, made, OpenBackup())).result["past"])
        go(services.close_past_day(ROOT, day))

    def modules() -> None:
        go(services.create_site(ROOT, ask.CreateSite(name="made", modules=("redis",))))
        go(services.configure_site(ROOT, "made", ask.ConfigureSite(answers={"optimisation": "big"})))
        go(services.configure_site(ROOT, "made", ask.ConfigureSite(add_modules=("memcached",))))

    def image() -> None:
        named = ask.PullImage(registry="registry.test", repository="club/app")
        go(services.create_site(ROOT, ask.CreateSite(name="made", image=named, command=("serve",), port=8080)))

    def send() -> None:
        go(services.send_version(ROOT, "shop", ask.SendVersion(version="3.0", upload=upload(b"3.0"))))

    def deliver() -> None:
        go(services.deliver_version(ROOT, "shop", "alpha", ask.DeliverVersion(version="2.0")))

    def deploy() -> None:
        deliver()
        go(services.deploy_version(ROOT, "shop", "alpha", ask.DeployVersion()))

    def rollback() -> None:
        go(services.roll_back(ROOT, "shop", "alpha", ask.RollBack(with_data=True)))

    def sync() -> None:
        wanted = ask.Synchronise(source="alpha", content=True, data=True, confirm="prod", reason="try")
        go(services.synchronise(ROOT, "shop", "prod", wanted))

    def sleep() -> None:
        go(services.sleep_site(ROOT, "app"))
        site = services.store.site("app")
        assert site is not None and services.wake(site.site.id).awake

    sites = (sleep, create, update, destroy, backup, past, change, modules, image)
    apps = (send, deliver, deploy, rollback, sync)
    {each.__name__: each for each in (*sites, *apps)}[sys.argv[2]]()
    services.close()


if __name__ == "__main__":
    main()
