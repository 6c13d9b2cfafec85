"""The vendors' API descriptions, and whether a request or an answer is one of theirs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse
from openapi_schema_validator import OAS30Validator

OURS = Path(__file__).resolve().parents[1] / "provider_specs"
THEIRS = Path(os.environ.get("PROVIDER_SPECS", OURS.parents[2] / "shared" / "provider_specs"))
"""Those without an open licence."""
HOST = "http://double"


class Description:
    """One description file, served under `prefix`."""

    def __init__(self, file: str, prefix: str = "") -> None:
        self.file = next((folder / file for folder in (OURS, THEIRS) if (folder / file).exists()), None)
        self._prefix = prefix

    @property
    def is_here(self) -> bool:
        return self.file is not None

    def knows(self, method: str, path: str) -> bool:
        """Whether the description has this operation; none has, if it is not here."""
        if self.file is None:
            return False
        bare = path.removeprefix(self._prefix)
        patterns = [
            re.sub(r"\{[^}]+\}", "[^/]+", known)
            for known, ways in self._plain()["paths"].items()
            if method.lower() in ways
        ]
        return any(re.fullmatch(pattern, bare) for pattern in patterns)

    def faults(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        body: bytes,
        status: int | None = None,
        said: Any = None,
    ) -> list[str]:
        """What is wrong with a request or, if `status` is given, with the answer to it."""
        split = urlsplit(address)
        kind = headers.get("Content-Type", "application/json").partition(";")[0]
        request = MockRequest(
            HOST,
            method.lower(),
            split.path,
            args=dict(parse_qsl(split.query)),
            headers=dict(headers),
            data=body or None,
            content_type=kind,
        )
        api = self._api()
        if status is None:
            errors = api.iter_request_errors(request)
        else:
            data = json.dumps(said).encode() if said is not None else b""
            errors = api.iter_response_errors(
                request, MockResponse(data, status_code=status, content_type="application/json")
            )
        return [_words(error) for error in errors]

    def schema_faults(self, path: str, method: str, kind: str, thing: Any) -> list[str]:
        """What is wrong with a body, by its schema alone: for forms that openapi-core cannot read."""
        spec = self._plain()
        schema = spec["paths"][path][method]["requestBody"]["content"][kind]["schema"]
        validator = OAS30Validator({**schema, "components": spec["components"]})
        return [error.message[:300] for error in validator.iter_errors(thing)]

    def _plain(self) -> dict[str, Any]:
        return _load(str(self.file))

    def _api(self) -> OpenAPI:
        return _api(str(self.file), self._prefix)


@cache
def _load(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(file).read_text())
    return loaded


@cache
def _api(file: str, prefix: str) -> OpenAPI:
    spec = {**_load(file), "servers": [{"url": HOST + prefix}]}
    spec.pop("security", None)  # whether credentials are good is the double's to say
    paths = {
        path: {way: _open(operation) for way, operation in ways.items() if way != "servers"}
        for path, ways in spec["paths"].items()
    }
    return OpenAPI.from_dict({**spec, "paths": paths}, config=Config(spec_validator_cls=None))


def _open(operation: Any) -> Any:
    if not isinstance(operation, dict) or "responses" not in operation:
        return operation
    return {**{name: value for name, value in operation.items() if name != "servers"}, "security": []}


def _words(error: BaseException) -> str:
    causes = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        causes.append(str(error))
    found = getattr(error, "schema_errors", None)
    causes += [one.message for one in found] if found else []
    return " < ".join(causes)[:1000]
