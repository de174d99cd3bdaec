"""Threat 11 again, read back by the programs that read these files in a site: many values in each run.

A program that is not installed is skipped; the suite installs all but the large ones, PostgreSQL and Java.
"""

from __future__ import annotations

import http.client
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_quoting import hostile

from alveole.catalogue.manifest import Format
from alveole.catalogue.quoting import Unwritable, quote

BATCH = st.lists(hostile, min_size=10, max_size=80)
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def needs(*programs: str) -> pytest.MarkDecorator:
    absent = [name for name in programs if shutil.which(name) is None and not Path(name).exists()]
    return pytest.mark.skipif(bool(absent), reason=f"{', '.join(absent)} not installed")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="alvq", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def quoted(format: Format, values: Sequence[str]) -> tuple[list[str], list[str]]:
    """The values that can be written, and how."""
    kept, texts = [], []
    for value in values:
        try:
            texts.append(quote(format, value))
        except Unwritable:
            continue
        kept.append(value)
    return kept, texts


def run(argv: Sequence[str], **options: object) -> bytes:
    done = subprocess.run(argv, capture_output=True, timeout=60, **options)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return bytes(done.stdout)


def from_hex(output: bytes) -> list[str]:
    return [bytes.fromhex(line).decode() for line in output.decode().splitlines()]


@needs("/bin/sh")
@FEW
@given(BATCH)
def test_the_shell(folder: Path, values: list[str]) -> None:
    kept, texts = quoted(Format.SHELL, values)
    script = folder / "script"
    script.write_text(
        "".join(f"v={text}\nprintf '%s\\0' \"$v\" {text}\n" for text in texts), encoding="utf-8", newline=""
    )
    assert run(["/bin/sh", str(script)]).decode().split("\0")[:-1] == [value for value in kept for _ in range(2)]


@needs("php")
@FEW
@given(BATCH)
def test_php(folder: Path, values: list[str]) -> None:
    kept, texts = quoted(Format.PHP, values)
    script = folder / "script.php"
    listed = ",\n".join(texts)
    script.write_text(f'<?php foreach ([{listed}] as $v) echo bin2hex($v), "\\n";', encoding="utf-8", newline="")
    assert from_hex(run(["php", "-n", str(script)])) == kept


@needs("php")
@FEW
@given(BATCH)
def test_php_ini(folder: Path, values: list[str]) -> None:
    """The scanner of php.ini and of the pools of php-fpm; constants and variables must not be replaced."""
    kept, texts = quoted(Format.INI, values)
    path = folder / "php.ini"
    lines = [f"v{at} = {text}\n" for at, text in enumerate(texts)]
    path.write_text("[x]\n" + "".join(lines) + "last = 1\n", encoding="utf-8", newline="")
    code = f"foreach (parse_ini_file('{path}') as $v) echo bin2hex($v), \"\\n\";"
    assert from_hex(run(["php", "-n", "-r", code])) == [*kept, "1"]


@needs("my_print_defaults")
@FEW
@given(BATCH)
def test_option_files_of_mariadb(folder: Path, values: list[str]) -> None:
    kept, texts = quoted(Format.INI, values)
    path = folder / "my.cnf"
    lines = [f"v{at} = {text}\n" for at, text in enumerate(texts)]
    path.write_text("[x]\n" + "".join(lines) + "last = 1\n", encoding="utf-8", newline="")
    output = run(["my_print_defaults", f"--defaults-file={path}", "x"]).decode()
    assert output == "".join(f"--v{at}={value}\n" for at, value in enumerate([*kept])) + "--last=1\n"


@needs("my_print_defaults")
def test_no_value_is_cut_into_a_line_of_its_own(folder: Path) -> None:
    """MariaDB reads 4096 bytes at a time: what follows would be taken for another option."""
    path = folder / "long.cnf"
    for length in (3000, 3400, 3490):
        path.write_text(f"[x]\nv = {quote(Format.INI, 'a' * length)}\n", encoding="utf-8")
        assert run(["my_print_defaults", f"--defaults-file={path}", "x"]).decode() == f"--v={'a' * length}\n"
    for value in ("a" * 3600 + "\\" * 500, '"' * 2000, "é" * 2000):
        with pytest.raises(Unwritable):
            quote(Format.INI, value)


@needs("ldapmodify")
@FEW
@given(BATCH)
def test_ldif(folder: Path, values: list[str]) -> None:
    """It shows plain values as they are, and of others the number of bytes."""
    kept, texts = quoted(Format.LDIF, [value for value in values if value])
    path = folder / "x.ldif"
    lines = "".join(f"v{at}:{text}\n" for at, text in enumerate(texts))
    path.write_text(f"dn: cn=x\nchangetype: add\n{lines}last: 1\n", encoding="utf-8", newline="")
    output = run(["ldapmodify", "-n", "-v", "-x", "-H", "ldapi://%2fnone", "-f", str(path)]).decode()
    shown = [value if value.isascii() else f"NOT ASCII ({len(value.encode())} bytes)" for value in kept]
    expected = "".join(f"add v{at}:\n\t{value}\n" for at, value in enumerate(shown))
    assert output.startswith(f"{expected}add last:\n\t1\n")


@needs("apache2")
@FEW
@given(BATCH)
def test_apache(folder: Path, values: list[str]) -> None:
    kept, texts = quoted(Format.APACHE, [value for value in values if value])
    path = folder / "apache.conf"
    head = f"ServerName x\nLoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\nErrorLog {folder}/e\n"
    lines = "".join(f"Define V{at} {text}\n" for at, text in enumerate(texts))
    path.write_text(f"{head}PidFile {folder}/p\n{lines}Define LAST 1\n", encoding="utf-8", newline="")
    output = run(["apache2", "-d", str(folder), "-f", str(path), "-t", "-D", "DUMP_RUN_CFG"]).decode()
    shown = dict(re.findall(r"^Define: (\w+)=(.*)$", output, re.MULTILINE))
    assert shown == {**{f"V{at}": value for at, value in enumerate(kept)}, "LAST": "1"}


@needs("nginx")
@settings(FEW, max_examples=5)
@given(BATCH)
def test_nginx(folder: Path, values: list[str]) -> None:
    kept, texts = quoted(Format.NGINX, values)
    path, door = folder / "nginx.conf", folder / "door"
    door.unlink(missing_ok=True)
    places = "".join(f"location = /{at} {{ return 200 {text}; }}\n" for at, text in enumerate(texts))
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{ access_log off;\n{temporary}server {{ listen unix:{door};\n{places}}}\n}}\n",
        encoding="utf-8",
        newline="",
    )
    with subprocess.Popen(
        ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(path)], stderr=subprocess.PIPE
    ) as nginx:
        try:
            _wait(door.exists, nginx)
            client = http.client.HTTPConnection("x")
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.connect(str(door))
            for at, value in enumerate(kept):
                client.request("GET", f"/{at}")
                assert client.getresponse().read().decode() == value
            client.close()
        finally:
            nginx.terminate()


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None and time.monotonic() < end, "it did not start"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def mariadb(folder: Path) -> Iterator[list[str]]:
    data, door = folder / "mariadb", folder / "mariadb.sock"
    data.mkdir()
    server = subprocess.Popen(
        [
            *("mariadbd", "--no-defaults", "--skip-grant-tables", "--skip-networking", "--user=root"),
            *(f"--datadir={data}", f"--socket={door}", f"--pid-file={folder}/mariadb.pid"),
            *("--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M", "--innodb-use-native-aio=0"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(door.exists, server)
        yield ["mariadb", "--no-defaults", "-S", str(door), "-N", "--default-character-set=utf8mb4"]
    finally:
        server.terminate()
        server.wait(30)


@needs("mariadbd", "mariadb")
@FEW
@given(BATCH)
def test_literals_of_mariadb(mariadb: list[str], values: list[str]) -> None:
    kept, texts = quoted(Format.SQL, values)
    statements = "".join(f"SELECT CONCAT('x', HEX({text}));\n" for text in texts)
    lines = run(mariadb, input=statements.encode()).decode().splitlines()
    assert [bytes.fromhex(line[1:]).decode() for line in lines] == kept


@needs("mariadbd", "mariadb")
@FEW
@given(BATCH)
def test_no_literal_of_mariadb_is_left_in_any_mode(mariadb: list[str], values: list[str]) -> None:
    """Where backslashes escape nothing a value may read differently, but it still ends where it ends."""
    texts = quoted(Format.SQL, values)[1]
    statements = "".join(f"SELECT 'x', LENGTH({text}) >= 0, 'y';\n" for text in texts)
    mode = "SET sql_mode = 'NO_BACKSLASH_ESCAPES';\n"
    assert run(mariadb, input=(mode + statements).encode()).decode().splitlines() == ["x\t1\ty"] * len(texts)


@pytest.fixture(scope="module")
def postgresql(folder: Path) -> Callable[[str], bytes]:
    if os.geteuid() != 0 or "postgres" not in {each.pw_name for each in pwd.getpwall()}:
        pytest.skip("needs root and the account postgres")
    folder.chmod(0o711)
    data = folder / "postgresql"
    data.mkdir()
    shutil.chown(data, "postgres")
    options = {"user": "postgres", "cwd": "/", "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
    run(["/usr/lib/postgresql/15/bin/initdb", "-D", str(data), "-E", "UTF8", "--no-sync", "-A", "trust"], **options)

    def ask(statements: str) -> bytes:
        argv = ["/usr/lib/postgresql/15/bin/postgres", "--single", "-j", "-D", str(data), "postgres"]
        return run(argv, input=statements.encode(), **options)

    return ask


@needs("/usr/lib/postgresql/15/bin/initdb")
@settings(FEW, max_examples=6)
@given(BATCH, st.booleans())
def test_literals_of_postgresql(postgresql: Callable[[str], bytes], values: list[str], standard: bool) -> None:
    """Whether ``standard_conforming_strings`` is on or off."""
    kept, texts = quoted(Format.PGSQL, values)
    mode = f"SET standard_conforming_strings = {'on' if standard else 'off'};\n\n"
    # In single-user mode with -j a statement ends with a semicolon and an empty line.
    asked = "SELECT 'x' || encode(convert_to(v, 'UTF8'), 'hex') FROM (VALUES ({})) AS t(v);\n\n"
    statements = "".join(asked.format(text) for text in texts)
    output = postgresql(mode + statements).decode()
    found = re.findall(r'1: \?column\? = "x([0-9a-f]*)"', output)
    assert [bytes.fromhex(line).decode() for line in found] == kept


@needs("java", "javac")
@settings(FEW, max_examples=2)
@given(st.lists(hostile, min_size=60, max_size=200))
def test_properties_of_java(folder: Path, values: list[str]) -> None:
    kept, texts = quoted(Format.PROPERTIES, values)
    lines = "".join(f"v{at}={text}\n" for at, text in enumerate(texts))
    (folder / "x.properties").write_text(f"{lines}last=1\n", encoding="utf-8", newline="")
    program = folder / "Read.java"
    program.write_text(
        "import java.io.*; import java.util.*; import java.nio.charset.StandardCharsets;\n"
        "class Read { public static void main(String[] a) throws IOException {\n"
        " Properties p = new Properties(); p.load(new FileInputStream(a[0]));\n"
        ' for (int i = 0; i < p.size() - 1; i++) { String v = p.getProperty("v" + i);\n'
        "  System.out.println(HexFormat.of().formatHex(v.getBytes(StandardCharsets.UTF_8))); } } }\n"
    )
    assert from_hex(run(["java", str(program), str(folder / "x.properties")])) == kept
