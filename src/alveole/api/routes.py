"""Routes that cost nothing until somebody asks for them.

FastAPI works out of each function's arguments how a request is read and what the API's document says: for some seven
hundred routes that is a second of start and a tenth of control's memory, and most of them are never asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.routing import Router, compile_path, get_name

# FastAPI asks of each argument's type whether it is one of pydantic 1's, and would load the whole of that for it.
sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]  # how Python is told that a module is not there
#: What only the whole of a route has.
_LATER = frozenset(APIRoute.__annotations__) | {"app", "form_limits"}


class LateRoute(APIRoute):
    """Knows at once what it takes to find it; the rest is made when it is needed first, as :class:`APIRoute` does."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self.path, self.endpoint = path, endpoint
        self.name = options.get("name") or get_name(endpoint)
        self.methods = {method.upper() for method in options.get("methods") or ("GET",)}
        self.include_in_schema = options.get("include_in_schema", True)
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)
        self._options: dict[str, Any] | None = options

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there alone. Two threads may both make it: it comes out the same.
        options = self.__dict__.get("_options") if name in _LATER else None
        if options is None:
            if name in self.__dict__:
                # Another thread made it since Python looked.
                return self.__dict__[name]
            raise AttributeError(name)
        super().__init__(self.path, self.endpoint, **options)
        self._options = None
        return getattr(self, name)


def include(app: Starlette, router: Router) -> None:
    """Put the routes of ``router`` into ``app`` as they are: ``include_router`` would make each of them once more."""
    app.router.routes.extend(router.routes)
