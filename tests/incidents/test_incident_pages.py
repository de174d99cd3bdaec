"""The pages of incidents without scripts: list, history, rules, silences, promises; in both languages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from incidentkit import Incidents
from webkit import Visitor

HEAT = 'on = "site.heat"\nabove = 90\ntitle = "Too hot"\npromise = "cool"\n'


@pytest.fixture(autouse=True)
def clean(world: Incidents) -> Iterator[None]:
    yield
    world.clean()


def test_an_incident_by_its_owner(world: Incidents) -> None:
    world.rule("heat", HEAT)
    world.say("site.heat", "blog", 99.0, text="it is <b>hot</b>")
    world.say("site.heat", "shop", 99.0)
    world.round()
    with Visitor(world.door) as ana:
        ana.sign_in("ana")
        page = ana.get("/incidents")
        assert "Too hot" in page.text and "shop" not in page.text and "(1 open)" in page.text
        (link,) = {values["href"] for tag, values in page.tags if values.get("href", "").startswith("/incident/")}
        page = ana.get(link)
        assert "it is <b>hot</b>" in page.text and "What changed just before" in page.text and "Create" in page.text
        page = ana.submit(f"{link}/ack")
        assert "somebody looks after it" in page.text and "It is written down." in page.text
        page = ana.submit(f"{link}/comment", expect=422, text=" ")
        page = ana.submit(f"{link}/comment", text="the sun\nshines")
        assert "the sun shines" in page.text
        ana.ask("POST", f"{link}/act", data={"text": "a parasol", "csrf": csrf(ana)})
        ana.ask("POST", f"{link}/close", data={"text": "enough", "csrf": csrf(ana)})
        page = ana.get(f"{link}/report")
        assert "a parasol" in page.text and "Acknowledged after" in page.text
        page = ana.get("/site/blog/promises")
        assert "cool" in page.text and "broken" in page.text and "Create" in page.text
        page = ana.submit("/site/blog/silences", expect=422, why="", length="x")
        assert "not a duration" in page.text
        page = ana.submit("/site/blog/silences", why="summer", length="2h", weekly="")
        assert "It is silent." in page.text and "summer" in page.text
        page = ana.get("/incidents/silences")
        assert "summer" in page.text and "New silence" not in page.text
        page = ana.submit("/incidents/silence/.*")
        assert "The silence is over." in page.text
        assert ana.ask("GET", "/incidents/rules").status_code == 403
    with Visitor(world.door, "fr") as zoe:
        zoe.sign_in("zoe")
        page = zoe.get("/incidents")
        assert "Gravité" in page.text and "blog" not in page.text
        assert zoe.ask("GET", link).status_code == 404


def csrf(visitor: Visitor) -> str:
    form = next(each for each in visitor.page.forms if any(key == "csrf" for key, _ in each["fields"]))
    return str(dict(form["fields"])["csrf"])


def test_rules_by_an_operator(world: Incidents) -> None:
    world.say("site.heat", "blog", 99.0, text="hot as an oven")
    with Visitor(world.door, "fr") as olga:
        olga.sign_in("olga")
        page = olga.get("/incidents/rules")
        assert "Le site ne tourne pas" in page.text and "site.disk-share above 90 %" in page.text
        page = olga.submit("/incidents/rules", expect=422, name="t-x", text='on = "nothing"\nabove = "x"')
        assert "corriger" in page.text
        page = olga.submit("/incidents/rules", name="t-x", text=HEAT)
        assert "La règle est gardée." in page.text
        page = olga.submit("/incidents/rule/t-x", ("do", "try"), text=HEAT.replace("90", "80"))
        assert "hot as an oven" in page.text and "mauvais" in page.text
        page = olga.submit("/incidents/rule/t-x", ("do", "keep"), text=HEAT.replace("90", "95"))
        assert world.services.watch.rules["t-x"].above == 95
        page = olga.submit("/incidents/rule/t-x/remove")
        assert "t-x" not in world.services.watch.rules
        page = olga.get("/incidents/silences")
        page = olga.submit("/incidents/silences", rule="disk-low", why="nuit", length="6h", weekly="sat,sun 22:00")
        assert "Le silence est établi." in page.text and "sam. dim. 22:00 pendant 6 h" in page.text
