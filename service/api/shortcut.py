"""A shorter way to the routes of sessions: by taking a path apart, instead of trying one expression after the other."""

from collections.abc import Iterator
from typing import Any, NoReturn

from aiohttp import web
from yarl import URL

_NOT_FOUND_HERE: tuple[None, set[str]] = None, set()


class Shortcut(web.AbstractResource):
    """Finds the routes at `prefix`, `prefix/{name}` and `prefix/{name}/word` that the router's other resources have.

    To be registered before them. What it does not find, or what has its name in percent signs, it leaves to them; so
    it never has the last word, and knows nothing of methods that are not allowed.
    """

    def __init__(self, prefix: str, name: str, router: web.UrlDispatcher) -> None:
        super().__init__()
        self._prefix = prefix
        self._of_the_name = name
        self._router = router
        self._routes: dict[tuple[str, str], web.AbstractRoute] = {}
        self._fixed: set[str] = set()
        """What stands at the place of a name and is none."""

    @property
    def canonical(self) -> str:
        return self._prefix

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        path = request.rel_url.path_safe
        before, _, rest = path.partition(self._prefix)
        beside, _, named = rest.partition("/")
        name, slash, word = named.partition("/")
        route = self._routes.get((request.method, f"/{{}}{slash}{word}" if name else rest))
        if route is None or before or beside or name in self._fixed or "%" in path:
            return _NOT_FOUND_HERE
        return web.UrlMappingMatchInfo({self._of_the_name: name} if name else {}, route), set()

    def freeze(self) -> None:
        """The routes are all there now."""
        named = f"{self._prefix}/{{{self._of_the_name}}}"
        for route in self._router.routes():
            canonical = route.resource.canonical if route.resource else ""
            if canonical == self._prefix:
                self._routes[route.method, ""] = route
            elif canonical.startswith(named):
                self._routes[route.method, "/{}" + canonical.removeprefix(named)] = route
            elif canonical.startswith(self._prefix + "/"):
                self._fixed.add(canonical.removeprefix(self._prefix + "/"))

    def get_info(self) -> Any:
        return {"path": self._prefix}

    def raw_match(self, path: str) -> bool:
        """Never: no route is its own."""
        return False

    def add_prefix(self, prefix: str) -> NoReturn:
        raise NotImplementedError("it is for an application that stands alone")

    def url_for(self, **_: str) -> URL:
        raise NotImplementedError("the resources themselves say where they are")

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter(())
