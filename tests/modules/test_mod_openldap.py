"""OpenLDAP: people are added and log in through a page; only who may sees them; all of it outlives a restore."""

from __future__ import annotations

from modkit import HOSTILE, ModuleSite, ModuleSites, restarted, round_trip
from servicekit import shut

from instancekit import until

PASSWORD = "sé\"cret\\x'$(id)"
PAGE = r"""<?php
$link = ldap_connect(getenv('LDAPURI'));
ldap_set_option($link, LDAP_OPT_PROTOCOL_VERSION, 3);
header('Content-Type: application/json');
if (!@ldap_bind($link, $_POST['dn'] ?? null, $_POST['password'] ?? null)) {
    http_response_code(403);
    exit(json_encode(ldap_error($link)));
}
if (isset($_POST['name'])) {
    $uid = $_POST['uid'];
    $ok = ldap_add($link, "uid=$uid,ou=people," . getenv('LDAPBASE'), [
        'objectClass' => ['inetOrgPerson'], 'uid' => $uid, 'cn' => $_POST['name'], 'sn' => $_POST['name'],
        'userPassword' => $_POST['own'],
    ]);
    exit(json_encode($ok));
}
$result = @ldap_search($link, getenv('LDAPBASE'), '(uid=*)', ['uid', 'cn', 'userPassword']);
$found = $result ? ldap_get_entries($link, $result) : [];
$people = [];
for ($n = 0; $n < ($found['count'] ?? 0); $n++) {
    $people[$found[$n]['uid'][0]] = [$found[$n]['cn'][0], isset($found[$n]['userpassword'])];
}
ksort($people);
echo json_encode((object) $people);
"""
MODULES = ("openldap", "phpldapadmin", "php")


def admin(it: ModuleSite, suffix: str, password: str = PASSWORD, **more: str) -> dict[str, str]:
    return {"dn": f"cn=admin,{suffix}", "password": password, **more}


def test_people_who_log_in(site: ModuleSites) -> None:
    it = site(*MODULES, stem="ldap", content={"index.php": PAGE}, openldap__password=PASSWORD, organisation=HOSTILE[0])
    other = site("nginx", stem="other")
    suffix = f"dc={it.name},dc=localhost"
    assert it.post("/", admin(it, suffix, name="Ada Lovelace", uid="ada", own="first programmer")).json is True
    assert it.post("/", admin(it, suffix, name=HOSTILE[3], uid="bee", own="honey & wax")).json is True
    ada = {"dn": f"uid=ada,ou=people,{suffix}", "password": "first programmer"}

    def check() -> None:
        seen = it.post("/", ada).json
        assert seen == {"ada": ["Ada Lovelace", False], "bee": [HOSTILE[3], False]}
        it.post("/", {**ada, "password": "wrong"}, status=403)
        it.post("/", admin(it, suffix, password="wrong"), status=403)
        assert it.get("/").json == {}, "who has not logged in sees nobody"
        assert it.post("/", admin(it, suffix)).json["ada"] == ["Ada Lovelace", True]

    round_trip(it, check)
    shut(it, 3389, other=other)
    it.run("cat", "/config/openldap/config.ldif", status=1)
    base = it.run("ldapsearch", "-x", "-LLL", "-D", ada["dn"], "-w", ada["password"], "-s", "base", "o")
    assert "o:: " in base or HOSTILE[0] in base

    assert restarted(it, openldap__password="Another-Password9") == {"openldap"}
    it.post("/", admin(it, suffix), status=403)
    assert it.post("/", admin(it, suffix, "Another-Password9")).json["ada"][0] == "Ada Lovelace"
    # Ada herself writes of her own entry only.
    entry = f"dn: uid=bee,ou=people,{suffix}\nchangetype: modify\nreplace: sn\nsn: taken\n"
    it.run("ldapmodify", "-x", "-D", ada["dn"], "-w", ada["password"], input=entry, status=50)


def test_groups_and_what_everybody_reads(site: ModuleSites) -> None:
    it = site(
        *MODULES,
        stem="ldap",
        content={"index.php": PAGE},
        openldap__password="Plain-Password1",
        suffix="dc=Example,dc=ORG",
        reading="everybody",
        optimisation="huge",
        version="dev",
    )
    who = ("-x", "-D", "cn=admin,dc=example,dc=org", "-w", "Plain-Password1")
    group = "dn: cn=poets,ou=groups,dc=example,dc=org\nobjectClass: groupOfNames\ncn: poets\nmember: {}\n"
    person = "uid=ada,ou=people,dc=example,dc=org"
    added = it.post("/", admin(it, "dc=example,dc=org", "Plain-Password1", name="Ada", uid="ada", own="poem"))
    assert added.json is True
    it.run("ldapadd", *who, input=group.format(person))
    assert "cn=poets" in it.run("ldapsearch", "-x", "-LLL", "-b", person, "memberOf")
    assert it.get("/").json == {"ada": ["Ada", False]}
    it.run("ldapdelete", *who, person)
    # Done after the answer.
    until(lambda: person not in it.run("ldapsearch", "-x", "-LLL", "(cn=poets)"), 30, "a group keeps who is gone")
