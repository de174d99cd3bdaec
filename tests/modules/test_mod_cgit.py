"""cgit: push, fetch and look at a repository by the site's public name, with git itself."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from modkit import HOSTILE, PASSWORD, ModuleSite, ModuleSites, restarted, round_trip

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


class Git:
    """git of this machine, which trusts the instance's own authority and looks at no configuration of anybody's."""

    def __init__(self, it: ModuleSite, place: Path) -> None:
        self.it, self.place = it, place
        authority = place / "ca.pem"
        authority.write_text(it.alveole.cli("ca", "show").out)
        self.env = {
            **os.environ,
            "HOME": str(place),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSL_CAINFO": str(authority),
            **{f"GIT_{who}_{what}": "me@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def __call__(self, *words: str, at: str = ".", good: bool = True) -> str:
        host = f"{self.it.name}.localhost"
        more = ("-c", f"http.curloptResolve={host}:{self.it.alveole.https}:127.0.0.1")
        done = subprocess.run(
            ["git", *more, *words], cwd=self.place / at, env=self.env, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is good, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def url(self, repository: str, password: str = "") -> str:
        who = f"git:{password}@" if password else ""
        return f"https://{who}{self.it.name}.localhost:{self.it.alveole.https}/{repository}.git"


def commit(git: Git, at: str, name: str, text: str, message: str) -> None:
    (git.place / at / name).write_text(text)
    git("add", ".", at=at)
    git("commit", "--quiet", "-m", message, at=at)


def test_push_look_fetch_and_find_it_again(site: ModuleSites, tmp_path: Path) -> None:
    it = site("cgit", stem="git", repositories="shop  tools", password=PASSWORD, title=HOSTILE[0])
    assert "shop" in it.get("/").text and it.get("/").title == HOSTILE[0]
    git = Git(it, tmp_path)
    git("init", "--quiet", "-b", "main", "work")
    commit(git, "work", "README.md", "# Soupe à l'oignon\n", "Première recette")
    (tmp_path / "work" / "big.bin").write_bytes(os.urandom(3_000_000))
    commit(git, "work", "more.txt", "x", "Add more")
    git("push", git.url("shop"), "main", at="work", good=False)
    git("push", git.url("shop", "wrong-password"), "main", at="work", good=False)
    git("push", git.url("shop", PASSWORD), "main", at="work")

    def there() -> None:
        assert "Première recette" in it.get("/shop.git/log/").text
        assert "Soupe à l" in it.get("/shop.git/plain/README.md").text
        assert "README.md" in it.get("/shop.git/tree/").text
        assert it.get("/shop.git/snapshot/shop-main.tar.gz").raw[:2] == b"\x1f\x8b"
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        git("clone", "--quiet", git.url("shop"), "copy")
        assert (tmp_path / "copy/big.bin").read_bytes() == (tmp_path / "work/big.bin").read_bytes()

    round_trip(it, there)
    it.get("/cgit-files/cgit.css")
    for path in ("/shop.git/config", "/htpasswd", "/absent.git/", "/../htpasswd", "/shop.git/HEAD"):
        page = it.get(path, status=None)
        assert page.status >= 400 or ("$6$" not in page.text and "repositoryformatversion" not in page.text), page
    git("clone", "--quiet", git.url("absent"), "nothing", good=False)


def test_history_and_readers(site: ModuleSites, tmp_path: Path) -> None:
    it = site("cgit", stem="git", password=PASSWORD, user="git")
    git = Git(it, tmp_path)
    git("init", "--quiet", "-b", "main", "work")
    commit(git, "work", "a", "1", "one")
    git("push", git.url("project", PASSWORD), "main", at="work")
    git("commit", "--quiet", "--amend", "-m", "other", at="work")
    assert "denying" in git("push", "--force", git.url("project", PASSWORD), "main", at="work", good=False).lower()
    assert restarted(it, rewrite=True) == set(), "git reads its settings at each push"
    git("push", "--force", git.url("project", PASSWORD), "main", at="work")
    assert restarted(it, readers="password") == {"nginx"}
    it.get("/", status=401)
    it.get("/project.git/", status=401)
    git("clone", "--quiet", git.url("project"), "copy", good=False)
    git("clone", "--quiet", git.url("project", PASSWORD), "copy")
    word = base64.b64encode(f"git:{PASSWORD}".encode()).decode()
    assert "other" in it.get("/project.git/log/", headers={"Authorization": f"Basic {word}"}).text
    assert restarted(it, repositories="project second", readers="everybody") == {"nginx"}
    assert "second" in it.get("/").text
    git("push", git.url("second", PASSWORD), "main", at="work")
