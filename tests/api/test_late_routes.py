"""Routes are made when they are asked for first: each of them can be, and none of them is before."""

from __future__ import annotations

from fastapi import FastAPI

from alveole import api, web
from alveole.api.gate import routes_of
from alveole.api.routes import LateRoute
from alveole.config import Settings


def test_every_route_can_be_made() -> None:
    app = api.build(None, Settings(), pages=web.install)  # type: ignore[arg-type]  no route is called
    assert isinstance(app, FastAPI)
    late = [route for route in routes_of(app) if isinstance(route, LateRoute)]
    assert len(late) > 400
    for route in late:
        # A fault in a function's arguments would show at the first request.
        assert route.dependant.call is route.endpoint
        assert route.app is not None


def test_nothing_is_made_of_what_nobody_asked_for() -> None:
    async def look(site: str, wide: bool = False) -> None: ...

    route = LateRoute("/v1/sites/{site}", look, methods=["get"], summary="Show a site")
    assert (route.name, route.methods, route.endpoint) == ("look", {"GET"}, look)
    assert route.path_regex.match("/v1/sites/blog")
    assert not hasattr(route, "original_router")
    assert "dependant" not in vars(route)
    assert [field.name for field in route.dependant.query_params] == ["wide"]
    assert route.summary == "Show a site"
