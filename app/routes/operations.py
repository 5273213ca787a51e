"""Operations: declared and described with FastAPI, called without its machinery.

For each request FastAPI goes through the tree of dependencies anew, with threads, exit stacks and copies of fields:
that takes longer than to read a conversation. Here, what an operation asks for is worked out when it is declared.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_type_hints

from fastapi import Request, Response, params
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from app.errors import FieldError, Invalid
from app.schemas.problems import field_errors


class Operation(APIRoute):
    """A route whose endpoint may ask for the request, for dependencies and security schemes, and for parameters in the
    path, the query and headers; the last two have a default, or are together a model. Dependencies run in the event
    loop and before parameters are looked at, and none of them yields.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._call = _Call(endpoint, set(self.param_convertors))

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answers a request if its path is this operation's, and says whether it did; raises a ``Problem``."""
        found = self.path_regex.match(scope["path"])
        if not found:
            return False
        scope["route"], scope["path_params"] = self, found.groupdict()
        response: Response = await self._call(Request(scope, receive, send))
        await response(scope, receive, send)
        return True


class _Call:
    """A function, and where its arguments come from; a plain one takes the request and nothing else."""

    def __init__(self, function: Callable[..., Any], path_names: set[str]) -> None:
        self.function = function
        self._request = ""
        self._dependencies: list[tuple[str, _Call]] = []
        self._parameters: list[_Parameter] = []
        code = function if inspect.isroutine(function) else type(function).__call__
        self.awaited = inspect.iscoroutinefunction(code)
        hints = get_type_hints(code, include_extras=True)
        for name, given in inspect.signature(function).parameters.items():
            hint, marks = hints[name], getattr(hints[name], "__metadata__", ())
            depends = [mark.dependency for mark in marks if isinstance(mark, params.Depends)]
            if depends:
                assert depends[0]
                self._dependencies.append((name, _Call(depends[0], set())))
            elif hint in (Request, HTTPConnection):
                self._request = name
            else:
                self._parameters.append(_parameter(name, hint, given.default, name in path_names))
        self.is_plain = bool(self._request) and not self._dependencies and not self._parameters

    async def __call__(self, request: Request) -> Any:
        arguments: dict[str, Any] = {self._request: request} if self._request else {}
        for name, dependency in self._dependencies:
            if dependency.is_plain:
                found = dependency.function(request)
                arguments[name] = await found if dependency.awaited else found
            else:
                arguments[name] = await dependency(request)
        errors: tuple[FieldError, ...] = ()
        for parameter in self._parameters:
            try:
                arguments[parameter.name] = parameter.read(request)
            except ValidationError as error:
                errors += parameter.errors(error)
        if errors:
            raise Invalid("A parameter is invalid.", errors)
        returned = self.function(**arguments)
        return await returned if self.awaited else returned


class _Parameter(NamedTuple):
    """A parameter of a function: ``alias`` is its name in the request, empty for a model of the whole query."""

    name: str
    alias: str
    given: Callable[[Request], Mapping[str, str]]
    adapter: TypeAdapter[Any]
    default: Any

    def read(self, request: Request) -> Any:
        """Returns the argument; raises ``ValidationError``."""
        given = self.given(request)
        if not self.alias:
            return self.adapter.validate_python(given)
        value = given.get(self.alias)
        return self.default if value is None else self.adapter.validate_python(value)

    def errors(self, error: ValidationError) -> tuple[FieldError, ...]:
        """Returns what is wrong, without the value."""
        found = field_errors(error.errors(include_input=False, include_url=False, include_context=False))
        named = [part._replace(pointer=f"{self.alias}{part.pointer}".lstrip("/")) for part in found]
        return tuple(named)


def _parameter(name: str, hint: Any, default: Any, in_path: bool) -> _Parameter:
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    if in_path:
        return _Parameter(name, name, lambda request: request.path_params, adapter, default)
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, params.Header):
            return _Parameter(
                name, mark.alias or name.replace("_", "-"), lambda request: request.headers, adapter, default
            )
    kind = getattr(hint, "__origin__", hint)
    alias = "" if isinstance(kind, type) and issubclass(kind, BaseModel) else name
    assert not alias or default is not inspect.Parameter.empty
    return _Parameter(name, alias, lambda request: request.state.query, adapter, default)
