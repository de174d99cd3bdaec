"""A site as one file, carried by hand."""

from __future__ import annotations

from pathlib import Path

from fleetkit import COMMAND, Pair

from instance import Instance
from instancekit import page, until


def key_of(instance: Instance) -> str:
    return str(instance.api("GET", "/v1/identity")["key"])


def test_a_site_is_carried_by_hand(pair: Pair, tmp_path: Path) -> None:
    """Threats 8 and 10: what is not signed by somebody known, or not as it was signed, is not taken."""
    main, far = pair.main, pair.far
    main.create(
        "diary", None, command=COMMAND, port=8000, volumes=[{"name": "data", "path": "/data"}], env={"A": "s3cret"}
    )
    main.cli("site", "exec", "diary", "--", "/bin/sh", "-c", "echo kept > /data/page.txt")
    file = tmp_path / "diary.passport"
    main.cli("site", "export", "diary", "--to", str(file), "--for", key_of(far))
    assert b"s3cret" not in file.read_bytes() and b"kept" not in file.read_bytes()
    for each in far.api("GET", "/v1/signers"):
        far.api("DELETE", f"/v1/signers/{each['name']}")
    unknown = far.cli("site", "import", str(file), "--json", status=3)
    assert unknown.fields == {"trust"}
    signer = main.api("GET", "/v1/identity")["fingerprint"]
    assert main.cli("site", "import", str(file), "--json", status=3).fields == {"upload", "name"}, "sealed to the other"
    for at in (40, -100_000 if file.stat().st_size > 200_000 else -600, -1):
        raw = bytearray(file.read_bytes())
        raw[at] ^= 1
        bad = tmp_path / "bad.passport"
        bad.write_bytes(raw)
        refused = far.cli("site", "import", str(bad), "--trust", signer, "--json", status=3)
        assert refused.fields == {"upload"}, refused
        (tmp_path / "short.passport").write_bytes(file.read_bytes()[:-5])
    refused = far.cli("site", "import", str(tmp_path / "short.passport"), "--trust", signer, "--json", status=3)
    assert refused.fields == {"upload"}, refused
    assert far.api("GET", "/v1/sites") == []
    made = far.cli("site", "import", str(file), "--trust", signer, "--json").json
    assert made["state"] == "running" and made["volumes"][0]["name"] == "data"
    until(lambda: "kept" in far.fetch("diary.far.localhost", "/page.txt").body, 20)
    assert far.api("GET", "/v1/sites/diary?show_env=true")["env"] == {"A": "s3cret"}
    main.destroy("diary")
    far.destroy("diary")


def test_back_under_another_name(pair: Pair, tmp_path: Path) -> None:
    main = pair.main
    main.create("front", page("one"))
    main.cli("site", "export", "front", "--to", str(tmp_path / "f"))
    main.cli("site", "import", str(tmp_path / "f"), "--as", "again")
    until(lambda: "one" in main.fetch("again").body, 20)
    for name in ("front", "again"):
        main.destroy(name)
