"""Bad requests from a server's own OpenAPI document, deterministic by seed.

Bodies are drawn from the schema, then broken (wrong types, missing, extra, too long, out of range) until the schema
refuses them; around them are broken JSON, headers, methods, keys, paths and sizes.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

_JUNK: tuple[Any, ...] = (None, True, -1, 0, 10**30, 1.5, "", "x", "\u202e\x00", [], [[]], {}, {"a": {}}, "9" * 500)
_METHODS = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS")
_JSON = "application/json"
_DEPTH = 6


@dataclass(frozen=True)
class BadRequest:
    """One request that must be refused, and what is wrong with it."""

    kind: str
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Schemas:
    """The request bodies of a document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.bodies: dict[str, dict[str, Any]] = {}
        for path, operations in document["paths"].items():
            body = operations.get("post", {}).get("requestBody")
            if body is not None:
                self.bodies[path] = body["content"][_JSON]["schema"]
        self._validators = {
            path: Draft202012Validator({**schema, "components": document["components"]})
            for path, schema in self.bodies.items()
        }

    def valid(self, path: str, body: Any) -> bool:
        """Whether the schema of a path allows a body."""
        return bool(self._validators[path].is_valid(body))

    def draw(self, path: str, lot: random.Random) -> Any:
        """A body that is shaped as the schema says (it may still break a rule that no schema can tell)."""
        return self._value(self.bodies[path], lot, 0)

    def _value(self, schema: Mapping[str, Any], lot: random.Random, depth: int) -> Any:
        if "$ref" in schema:
            found: Any = self._document
            for part in schema["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            return self._value(found, lot, depth)
        if "anyOf" in schema:
            return self._value(lot.choice(schema["anyOf"]), lot, depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return lot.choice(schema["enum"])
        return self._of_type(schema, lot, depth)

    def _of_type(self, schema: Mapping[str, Any], lot: random.Random, depth: int) -> Any:
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, lot, depth)
        if kind == "array":
            least = schema.get("minItems", 0)
            most = least if depth > _DEPTH else min(schema.get("maxItems", 3), least + 2)
            return [self._value(schema["items"], lot, depth + 1) for _ in range(lot.randint(least, most))]
        if kind == "string":
            return "en" if "pattern" in schema else lot.choice(["house", "It is 4.", "ja", "Привет", "四"])
        if kind in ("integer", "number"):
            least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
            return max(1, least) if kind == "integer" else min(schema.get("maximum", 1.0), least + 0.5)
        return lot.choice([True, False]) if kind == "boolean" else None

    def _object(self, schema: Mapping[str, Any], lot: random.Random, depth: int) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        properties = schema.get("properties", {})
        chosen = {k: v for k, v in properties.items() if k in required or lot.random() < 0.5}
        return {name: self._value(part, lot, depth + 1) for name, part in chosen.items()}


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a body."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield from _places(part, (*at, key))


def _broken(body: Any, lot: random.Random) -> tuple[str, Any]:
    """The body with one thing changed at a random place."""
    body = copy.deepcopy(body)
    place = lot.choice(list(_places(body)))
    if not place:
        return "another body", lot.choice(_JUNK)
    node = body
    for key in place[:-1]:
        node = node[key]
    key, old = place[-1], node[place[-1]]
    changes: list[tuple[str, Any]] = [("junk", lot.choice(_JUNK)), ("wrapped", [old]), ("text", json.dumps(old))]
    if isinstance(old, str):
        changes.append(("long", old * 10_000))
    if isinstance(old, int | float) and not isinstance(old, bool):
        changes += [("out of range", old + 10**6), ("out of range", -(10**6))]
    kind, new = lot.choice([*changes, ("missing", None), ("extra", None)])
    if kind == "missing" and isinstance(node, dict):
        del node[key]
    elif kind == "extra" and isinstance(node, dict):
        node[lot.choice(["x", "Mode", "__class__", "\u0000", "тип"])] = lot.choice(_JUNK)
    else:
        node[key] = new
    return kind, body


def broken_bodies(schemas: Schemas, lot: random.Random) -> Iterator[BadRequest]:
    """Endless bodies that their schema refuses."""
    paths = sorted(schemas.bodies)
    while True:
        path = lot.choice(paths)
        kind, body = _broken(schemas.draw(path, lot), lot)
        if not schemas.valid(path, body):
            yield BadRequest(kind, "POST", path, json.dumps(body).encode(), {"content-type": _JSON})


def broken_requests(schemas: Schemas, lot: random.Random, body_bytes: int) -> Iterator[BadRequest]:
    """Endless requests that are broken around a body that is shaped well."""
    paths = sorted(schemas.bodies)
    makers: Sequence[Callable[[str, bytes, random.Random, int], BadRequest]] = (
        _cut, _not_text, _not_a_number, _wrong_method, _wrong_kind, _wrong_key, _wrong_path, _too_large, _compressed,
    )  # fmt: skip
    while True:
        path = lot.choice(paths)
        body = json.dumps(schemas.draw(path, lot)).encode()
        yield lot.choice(makers)(path, body, lot, body_bytes)


def _cut(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    return BadRequest("cut JSON", "POST", path, body[: lot.randrange(len(body))], {"content-type": _JSON})


def _not_text(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    at = lot.randrange(len(body))
    noise = lot.choice([b"\xff", b"\xc3", b"\x00", b"\xed\xa0\x80"])
    return BadRequest("not UTF-8", "POST", path, body[:at] + noise + body[at:], {"content-type": _JSON})


def _not_a_number(path: str, _: bytes, lot: random.Random, __: int) -> BadRequest:
    value = lot.choice(["NaN", "-Infinity", "1e999", "[" * 5_000, '"\\ud800"', "'x'", "undefined"])
    return BadRequest("no JSON", "POST", path, f'{{"tasks": {value}}}'.encode(), {"content-type": _JSON})


def _wrong_method(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    return BadRequest("wrong method", lot.choice(_METHODS), path, body, {"content-type": _JSON})


def _wrong_kind(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    kinds = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "\u00e9", ""]
    return BadRequest("wrong Content-Type", "POST", path, body, {"content-type": lot.choice(kinds)})


def _wrong_key(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    keys = ["", "Bearer", "Bearer nobody", "Basic Zm9vOmJhcg==", "\u00ff\u00fe", "Bearer " + "k" * 5_000]
    return BadRequest("wrong key", "POST", path, body, {"content-type": _JSON, "authorization": lot.choice(keys)})


def _wrong_path(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    odd = ["/v2/judge", "/", "/v1", path + "x", path + "/..%2f..%2fetc", "//", "/%00", "/" + "a" * 4_000]
    return BadRequest("wrong path", "POST", lot.choice(odd), body, {"content-type": _JSON})


def _too_large(path: str, _: bytes, lot: random.Random, most: int) -> BadRequest:
    return BadRequest("too large", "POST", path, b" " * (most + lot.randint(1, 1_000)), {"content-type": _JSON})


def _compressed(path: str, body: bytes, lot: random.Random, _: int) -> BadRequest:
    headers = {"content-type": _JSON, "content-encoding": lot.choice(["gzip", "br", "zstd", "x"])}
    return BadRequest("compressed", "POST", path, body, headers)
