"""What a site is, seen from outside: what runs, how it is reached, where it lives."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from apps import GUNICORN_PORT, ON_PORT, ON_SOCKET, PYTHON, ask, hello
from e2ekit import Sites
from image import apache_image

from instance import GUNICORN, Instance
from instancekit import archive, directory, page, run, until


def everywhere(alveole: Instance, name: str, word: str, path: str = "/") -> None:
    for family in (4, 6):
        for https in (False, True):
            answer = alveole.fetch(name, path, family=family, https=https)
            assert answer.status == 200 and word in answer.body, (family, https, answer)


def test_static_from_every_kind_of_source(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    source = directory(tmp_path / "site", {"index.html": "<p>hello", "deep/er/x.txt": "deep", "ä b.txt": "odd"})
    tar = tmp_path / "site.tar"
    run("tar", "-C", source, "-cf", tar, ".")
    run("gzip", "-k", tar)
    run("zstd", "-q", tar)
    run(PYTHON, "-m", "zipfile", "-c", tmp_path / "site.zip", *sorted(source.iterdir()))
    digests = set()
    for place in (source, f"{tar}.gz", f"{tar}.zst", tmp_path / "site.zip"):
        name = sites.name("static")
        made = alveole.cli("site", "create", name, "--from", str(place), "--json").json
        digests.add(made["release"])
        everywhere(alveole, name, "<p>hello")
        assert alveole.fetch(name, "/deep/er/x.txt").body == "deep"
        assert alveole.fetch(name, "/%C3%A4%20b.txt").body == "odd"
        assert alveole.fetch(name, "/none").status == 404
        assert alveole.fetch(name, "/../../../etc/passwd").status in (400, 404)
    assert len(digests) == 1, "the same content has the same digest, however it comes"


def test_gunicorn_on_a_port_and_on_a_socket(alveole: Instance, sites: Sites, debian: str) -> None:
    """The course's hello-world on the Debian base, both ways."""
    for command in (GUNICORN_PORT, ["/usr/bin/gunicorn", "--bind", "unix:/run/alveole/web.sock", "app:app"]):
        name = sites.name("hello")
        port = ["--port", "8000"] if command is GUNICORN_PORT else ["--socket"]
        source = alveole.root / f"{name}.tar.gz"
        source.write_bytes(hello("world"))
        words = ["--base", "debian", "--packages", GUNICORN, "--command", " ".join(command), *port]
        made = alveole.cli("site", "create", name, "--from", str(source), *words, "--json").json
        assert made["base_key"] == debian and made["base"] == "debian+gunicorn"
        everywhere(alveole, name, "Hello, world!")


def test_several_processes(alveole: Instance, sites: Sites) -> None:
    """Two programs under s6: one answers, one works beside it; one that dies is started again alone."""
    work = (
        "import os,time,pathlib; p=pathlib.Path('/data/starts')\n"
        "p.write_text((p.read_text() if p.exists() else '')+'x')\nprint('work', flush=True)\ntime.sleep(1000)"
    )
    name = sites.create(
        archive({"ask.py": ask_text("two"), "work.py": work}),
        processes=[
            {"name": "web", "argv": ON_PORT["command"]},
            {"name": "work", "argv": [PYTHON, "/site/current/work.py"]},
        ],
        port=8000,
        volumes=[{"name": "data", "path": "/data"}],
    )
    assert json.loads(alveole.fetch(name).body)["word"] == "two"
    starts = "print(len(open('/data/starts').read()))"
    until(lambda: alveole.inside(name, starts).strip() == "1", 30)
    find = (
        "import os,signal\nfor p in filter(str.isdigit, os.listdir('/proc')):\n"
        " if b'work.py' in open(f'/proc/{p}/cmdline','rb').read() and int(p) != os.getpid(): os.kill(int(p), 9)"
    )
    before = alveole.workload_pid(name)
    alveole.inside(name, find)
    until(lambda: alveole.inside(name, starts).strip() == "2", 30, "it is not started again")
    assert alveole.workload_pid(name) == before and alveole.fetch(name).status == 200


def ask_text(word: str) -> str:
    from apps import ASK

    return ASK.replace("{0}", word)


def test_environment_volumes_and_what_outlives_an_update(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    name = sites.name("env")
    source = directory(tmp_path / "a", {"ask.py": ask_text("one")})
    command = ["--command", " ".join(ON_PORT["command"]), "--port", "8000"]
    more = ["--env", 'GREETING=a b=c "d" $HOME ü', "--env", "EMPTY=", "--volume", "data:/data"]
    made = alveole.cli("site", "create", name, "--from", str(source), *command, *more, "--json").json
    assert made["env"] == {"GREETING": "***", "EMPTY": "***"}
    told = json.loads(alveole.fetch(name).body)
    assert told["env"]["GREETING"] == 'a b=c "d" $HOME ü' and told["env"]["EMPTY"] == ""
    assert told["env"]["PORT"] == "8000" and told["uid"] == 1000
    alveole.inside(name, "open('/data/kept','w').write('kept'); open('/tmp/lost','w').write('lost')")
    directory(tmp_path / "a", {"ask.py": ask_text("two")})
    alveole.cli("site", "update", name, "--from", str(source))
    assert json.loads(alveole.fetch(name).body)["word"] == "two"
    assert alveole.inside(name, "print(open('/data/kept').read())").strip() == "kept"
    alveole.cli("site", "set", name, "--env", "GREETING=hi", "--unset", "env.EMPTY")
    told = json.loads(alveole.fetch(name).body)["env"]
    assert told["GREETING"] == "hi" and "EMPTY" not in told
    alveole.cli("site", "restart", name)
    assert alveole.inside(name, "print(open('/data/kept').read())").strip() == "kept"


def test_under_a_path_of_the_main_domain(alveole: Instance, sites: Sites) -> None:
    name = sites.create(ask(), path="/my-app", **ON_SOCKET)
    everywhere(alveole, "localhost", '"word"', "/my-app/")
    told = json.loads(alveole.fetch("localhost", "/my-app/x?y=1").body)
    assert told["path"].endswith("/x?y=1")
    assert alveole.fetch("localhost", "/my-app").status in (200, 301, 302, 307, 308)
    assert alveole.fetch("localhost", "/my-apple/").status == 404
    assert alveole.fetch("localhost", "/").status == 404
    alveole.cli("site", "set", name, "--unset", "path")
    assert alveole.fetch("localhost", "/my-app/").status == 404


def test_allow_and_deny(alveole: Instance, sites: Sites) -> None:
    """Clients differ here by family: 127.0.0.1 and ::1."""
    name = sites.create(page("guarded"), allow=["127.0.0.0/8"])
    assert alveole.fetch(name, family=4).status == 200 and alveole.fetch(name, family=6).status == 403
    forged = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    assert alveole.fetch(name, family=6, headers=forged).status == 403, "threat 19: a forged address is not believed"
    alveole.cli("site", "set", name, "--unset", "allow", "--deny", "127.0.0.1")
    assert alveole.fetch(name, family=4).status == 403 and alveole.fetch(name, family=6, https=True).status == 200


def test_a_domain_of_its_own_with_its_own_certificate(alveole: Instance, sites: Sites) -> None:
    name = sites.name("dom")
    domain = f"{name}.example.org"
    alveole.create(name, page("mine"), domains=[domain])
    everywhere(alveole, domain, "mine")
    everywhere(alveole, name, "mine")
    context = alveole.trust()
    with (
        socket.create_connection(("127.0.0.1", alveole.https)) as raw,
        context.wrap_socket(raw, server_hostname=domain) as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate is not None
        assert [value for _kind, value in certificate["subjectAltName"]] == [domain]
        assert secure.selected_alpn_protocol() is None
    other = sites.name()
    refused = alveole.cli("site", "create", other, "--command", "x", "--domain", domain, "--json", status=3)
    assert domain in refused.out
    alveole.cli("site", "set", name, "--remove-domain", domain)
    assert alveole.fetch(domain).status == 404
    with pytest.raises(ssl.SSLError):
        alveole.fetch(domain, https=True, trusted=False)


def test_http2_and_a_redirect_to_https(alveole: Instance, sites: Sites, tmp_path: Path) -> None:
    name = sites.create(page("two"))
    ca = tmp_path / "ca.pem"
    ca.write_text(alveole.cli("ca", "show").out)
    resolve = f"{name}.localhost:{alveole.https}:127.0.0.1"
    url = f"https://{name}.localhost:{alveole.https}/"
    told = run("curl", "-sS", "--http2", "--cacert", ca, "--resolve", resolve, "-w", "%{http_version}", url).stdout
    assert told.endswith("\n2") and "<h1>two</h1>" in told
    alveole.cli("site", "set", name, "--https-only")
    moved = alveole.fetch(name, "/a?b=c")
    assert moved.status in (301, 308) and moved.headers["Location"] == f"{url}a?b=c"
    assert alveole.fetch(name, https=True).status == 200
    alveole.cli("site", "set", name, "--no-https-only")
    assert alveole.fetch(name).status == 200


def test_websocket_through_the_edge(alveole: Instance, sites: Sites) -> None:
    for how in (ON_PORT, ON_SOCKET):
        name = sites.create(ask(), **how)
        for secure in (False, True):
            with socket.create_connection(("127.0.0.1", alveole.https if secure else alveole.http), 5) as raw:
                line = alveole.trust().wrap_socket(raw, server_hostname=f"{name}.localhost") if secure else raw
                key = base64.b64encode(os.urandom(16)).decode()
                line.sendall(
                    f"GET /ws HTTP/1.1\r\nHost: {name}.localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
                )
                head = b""
                while b"\r\n\r\n" not in head:
                    head += line.recv(1)
                assert head.startswith(b"HTTP/1.1 101"), head
                mask = os.urandom(4)
                text = b"hello there"
                masked = bytes(b ^ mask[i % 4] for i, b in enumerate(text))
                line.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
                assert line.recv(64) == bytes([0x81, len(text)]) + text


def test_bodies_and_headers(alveole: Instance, sites: Sites) -> None:
    """Threats 19 and 21: the real peer is told to the site, and a site cannot make the edge serve a file."""
    import hashlib

    name = sites.create(ask(), **ON_PORT)
    body = os.urandom(3_000_000)
    sent = alveole.fetch(name, "/up", method="POST", body=body, https=True)
    assert sent.status == 201 and sent.body == hashlib.sha256(body).hexdigest()
    told = json.loads(alveole.fetch(name, headers={"X-Forwarded-For": "9.9.9.9", "X-Real-IP": "9.9.9.9"}).body)
    seen = {key.lower(): value for key, value in told["headers"].items()}
    assert seen["host"] == f"{name}.localhost:{alveole.http}" or seen["host"] == f"{name}.localhost"
    assert seen["x-forwarded-for"] == "127.0.0.1" and seen["x-forwarded-proto"] == "http"
    accel = alveole.fetch(name, "/accel")
    assert accel.body == "plain" and "X-Accel-Redirect" not in accel.headers


def test_unknown_names_reach_nobody(alveole: Instance, sites: Sites) -> None:
    """Threat 20."""
    sites.create(page("x"))
    assert alveole.fetch("nobody").status == 404
    assert alveole.fetch("example.com").status == 404
    with pytest.raises(ssl.SSLError):
        alveole.fetch("example.com", https=True, trusted=False)
    for host in ("../../x", "a b", "..", "x" * 300, "@|x"):
        with socket.create_connection(("127.0.0.1", alveole.http), 5) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            assert raw.recv(100).split()[1] in (b"400", b"404"), host


def test_an_image_that_runs_apache(alveole: Instance, sites: Sites) -> None:
    """``oci-archive:FILE`` and ``oci:DIR``: imported once, by digest; the second finds it there."""
    place, file = apache_image()
    name = sites.name("apache")
    made = alveole.cli("site", "create", name, "--base", f"oci-archive:{file}", "--plan", "medium", "--json").json
    assert made["base"].startswith("oci:sha256:")
    everywhere(alveole, name, "It works")
    assert "apache2" in alveole.cli("site", "exec", name, "--", "sh", "-c", "cat /proc/*/comm").out
    other = sites.name("apache")
    again = alveole.cli("site", "create", other, "--base", f"oci:{place}", "--plan", "medium", "--json").json
    assert again["base_key"] == made["base_key"]
    assert "It works" in alveole.fetch(other).body
    third = sites.name("apache")
    bases = [each for each in alveole.api("GET", "/v1/bases") if each["key"] == made["base_key"]]
    alveole.cli("site", "create", third, "--base", bases[0]["image"], "--plan", "medium")
    assert "It works" in alveole.fetch(third).body


def test_a_program_that_crashes_comes_back_and_the_reason_shows(alveole: Instance, sites: Sites) -> None:
    name = sites.create(ask(), **ON_PORT)
    pid = alveole.workload_pid(name)
    os.kill(pid, 9)
    until(lambda: alveole.answers(name) and alveole.workload_pid(name) != pid, 30, "it does not come back")
    until(lambda: any(e["verb"] == "repair" and e["state"] == "done" for e in alveole.journal(site=name)), 30)
    repair = next(each for each in alveole.journal(site=name) if each["verb"] == "repair")
    assert "workload" in repair["reason"] and ("SIGKILL" in repair["reason"] or "signal 9" in repair["reason"]), repair


def test_a_program_that_never_gets_ready(alveole: Instance, sites: Sites) -> None:
    """It is said why, with what the program printed; the name answers no other site's content."""
    name = sites.name("bad")
    words = ["--command", f"{PYTHON} -c 'raise SystemExit(\"my own words\")'", "--port", "8000", "--ready-seconds", "5"]
    failed = alveole.cli("site", "create", name, *words, "--json", status=5)
    assert "my own words" in failed.out + failed.err, failed
    shown = alveole.site(name)
    assert shown["state"] in ("failed", "starting") and shown["problem"]
    assert alveole.fetch(name).status in (502, 503, 404)
    started = time.monotonic()
    alveole.cli("site", "stop", name)
    alveole.cli("site", "destroy", name, "--yes")
    assert time.monotonic() - started < 20


def test_addresses_are_kept_for_life_and_interfaces_go_at_stop(alveole: Instance, sites: Sites) -> None:
    name = sites.create(ask("a"), **ON_PORT)
    made = alveole.site(name)
    host = f"http://{made['ipv4']}:8000/"

    def there() -> list[str]:
        return [
            each for each in alveole.interfaces() if f"{made['number']:x}" in each.removeprefix(alveole.prefix)[:-1]
        ]

    assert there()
    assert '"word": "a"' in run("curl", "-sS", "--max-time", "5", host).stdout
    alveole.update(name, ask("b"))
    assert '"word": "b"' in run("curl", "-sS", "--max-time", "5", host).stdout, "the address follows the update"
    alveole.verb(name, "stop")
    mine = [f"{alveole.prefix}{made['number']:x}{slot}" for slot in "ab"]
    assert not set(mine) & set(alveole.interfaces())
    sites.create(page("other"))
    alveole.verb(name, "start")
    again = alveole.site(name)
    assert (again["ipv4"], again["ipv6"]) == (made["ipv4"], made["ipv6"])
    assert '"word": "b"' in run("curl", "-sS", "--max-time", "5", host).stdout


def test_the_last_five_releases_are_kept(alveole: Instance, sites: Sites) -> None:
    name = sites.create(page("0"))
    for number in range(1, 8):
        alveole.update(name, page(str(number)))
    shown = alveole.site(name)
    assert len(shown["releases"]) == 5 and shown["releases"][0]["digest"] == shown["release"]
    kept = alveole.state / "sites" / shown["id"] / "content" / "releases"
    assert len(list(kept.iterdir())) == 5
    assert "<h1>7</h1>" in alveole.fetch(name).body


def test_export_for_a_proxy_in_front(alveole: Instance, sites: Sites) -> None:
    name = sites.create(page("x"))
    assert f"{name}.localhost" in alveole.cli("export", "nginx").out
    assert f"{name}.localhost" in alveole.cli("export", "apache").out


def test_one_page_cache_for_all(alveole: Instance, sites: Sites) -> None:
    """Two sites of one base see the same file: the same device and inode."""
    one, two = sites.create(ask(), **ON_PORT), sites.create(ask(), **ON_PORT)
    look = "import os; s=os.stat('/usr/bin/python3'); print(s.st_ino)"
    assert alveole.inside(one, look) == alveole.inside(two, look)


def test_the_process_list_of_the_host_shows_unprivileged_owners(alveole: Instance, sites: Sites) -> None:
    """Container root is nobody on the host."""
    name = sites.create(page("x"))
    for pid in alveole.site_pids():
        owner = Path(f"/proc/{pid}").stat().st_uid
        assert owner >= 0x7000_0000, (pid, owner)
    assert alveole.fetch(name).status == 200
    assert subprocess.run(["true"], check=True)
