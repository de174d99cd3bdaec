"""monit: the page of the site's processes, behind its password; a process that is away shows."""

from __future__ import annotations

import base64

import pytest
from modkit import ModuleSite, ModuleSites, Page, round_trip
from test_mod_logrotate import TOOLS

from instancekit import until

PASSWORD = "Correct-Horse7"


def page(it: ModuleSite, path: str = "/monit/", password: str = PASSWORD, status: int = 200) -> Page:
    word = base64.b64encode(f"admin:{password}".encode()).decode()
    return it.get(path, headers={"Authorization": f"Basic {word}"}, status=status)


@pytest.mark.parametrize("server", ["nginx", "apache"])
def test_the_page(site: ModuleSites, server: str) -> None:
    it = site(*TOOLS, server, stem="mon", monit__password=PASSWORD, monit__seconds=5)
    it.get("/monit/", status=401)
    page(it, password="wrong", status=401)
    assert it.get("/monit", follow=False, status=301).headers["Location"].endswith("/monit/")

    def all_run() -> bool:
        text = page(it).text
        return all(f"'{name}'" in text for name in (server, "php", "postgresql", "cron")) and (
            "Does not exist" not in text and "Execution failed" not in text and text.count(">OK<") >= 5
        )

    until(all_run, 40, lambda: page(it).text[-3000:])
    shown = page(it, "/monit/postgresql")
    assert "Unix socket response time" in shown.text
    assert it.run("cat", "/config/monit/monitrc", user=2002, status=1) == ""
    assert PASSWORD not in it.logs()

    def check() -> None:
        until(all_run, 60, lambda: page(it).text[-3000:])

    if server == "nginx":
        # With it cron, logrotate and tmpreaper, whose processes its page shows.
        round_trip(it, check)
    else:
        it.restart()
        check()
