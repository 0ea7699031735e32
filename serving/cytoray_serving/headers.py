"""The headers of an answer, for the gateway, the client and the OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_serving.messages import Answer, warnings_text
from cytoray_serving.schema import ChannelChosen
from cytoray_serving.served_answer import ServedAnswer

_CHANNELS = TypeAdapter(list[ChannelChosen])

# Name of a metric, any parameters except a duration, then the duration; quotes may contain commas and semicolons.
_DURATION = re.compile(r'([\w-]+)(?:;\s*(?!dur=)[\w-]+(?:=(?:"[^"]*"|[^;,"]*))?)*;\s*dur=([0-9]+(?:\.[0-9]+)?)')


def server_timing(seconds: Mapping[str, float]) -> str:
    """Write seconds per stage as a ``Server-Timing`` header, whose durations are milliseconds."""
    return ", ".join(f"{name};dur={1e3 * value:.3f}" for name, value in seconds.items())


def parse_server_timing(header: str) -> dict[str, float]:
    """Read seconds per stage from a ``Server-Timing`` header."""
    return {name: float(value) / 1e3 for name, value in _DURATION.findall(header)}


def parse_channels(header: str) -> tuple[ChannelChosen, ...]:
    """Read the chosen channels from a header; none if it is malformed, because the answer does not need them."""
    try:
        return tuple(_CHANNELS.validate_json(header))
    except ValidationError:
        return ()


def parse_warnings(header: str) -> Warnings:
    """Read warnings from a header; a malformed header becomes a warning."""
    try:
        return tuple(AnswerWarning(str(one["code"]), str(one["sentence"])) for one in json.loads(header))
    except (ValueError, TypeError, KeyError):
        return (AnswerWarning("warnings-unread", f"the service sent warnings in an unknown format: {header}"),)


@dataclass(frozen=True)
class AnswerHeader:
    """One header.

    Attributes
    ----------
    name
        Name of the header.
    field
        The field of :class:`~cytoray_serving.served_answer.ServedAnswer` for it.
    description
        For the OpenAPI document.
    write
        Returns the value for an answer, in ASCII; None to omit the header.
    read
        Returns the field for a value.
    missing
        The field if there is no header.
    """

    name: str
    field: str
    description: str
    write: Callable[[Answer], str | None]
    read: Callable[[str], Any] = str
    missing: Any = ""


# To add a fact about answers, add an entry here and a field of ServedAnswer.
ANSWER_HEADERS = (
    AnswerHeader("Content-Type", "media_type", "The format of the answer.", lambda answer: answer.media_type),
    AnswerHeader("X-Cytoray-Model", "model", "Name of the model that gave the answer.", lambda answer: answer.name),
    AnswerHeader(
        "X-Cytoray-Version",
        "version",
        "Its version in the registry; absent for a bundle folder.",
        lambda answer: answer.version,
        missing=None,
    ),
    AnswerHeader(
        "X-Cytoray-Digest", "digest", "SHA-256 of its specification and weights.", lambda answer: answer.digest
    ),
    AnswerHeader(
        "X-Cytoray-Kind", "kind", "Kind of the answer: labels, image, class or lineage.", lambda answer: answer.kind
    ),
    AnswerHeader(
        "X-Cytoray-Objects",
        "objects",
        "Number of objects, cells or tracks in the answer; 0 for images.",
        lambda answer: str(answer.objects),
        int,
        0,
    ),
    AnswerHeader(
        "X-Cytoray-Steps",
        "steps",
        "Versions of the earlier models of a pipeline in order; absent if there are none.",
        lambda answer: ", ".join(answer.steps) or None,
        lambda value: tuple(value.split(", ")),
        (),
    ),
    AnswerHeader(
        "X-Cytoray-Channels",
        "channels",
        "The chosen channels as JSON: [{name, number}, …]; absent if none were chosen.",
        lambda answer: json.dumps([one.model_dump() for one in answer.channels]) if answer.channels else None,
        parse_channels,
        (),
    ),
    AnswerHeader(
        "X-Cytoray-Warnings",
        "warnings",
        "What to know before using the answer, as JSON: [{code, sentence}, …]; absent without warnings. At most "
        "4 KB: the answer in JSON has all.",
        lambda answer: warnings_text(answer.warnings) if answer.warnings else None,
        parse_warnings,
        (),
    ),
    AnswerHeader(
        "Server-Timing",
        "seconds",
        "Milliseconds per stage (W3C Server Timing).",
        lambda answer: server_timing(answer.seconds),
        parse_server_timing,
        {},
    ),
)


def answer_headers(answer: Answer) -> dict[str, str]:
    """Return the headers of an answer."""
    values = ((header.name, header.write(answer)) for header in ANSWER_HEADERS)
    return {name: value for name, value in values if value is not None} | {"Vary": "Accept"}


def read_answer(body: bytes, headers: Mapping[str, str]) -> ServedAnswer:
    """Return an answer from a response.

    Parameters
    ----------
    headers
        Headers of the response, case-insensitive.

    Raises
    ------
    ValueError
        A header has an unexpected value, or this is not a response of the service.
    """
    if "X-Cytoray-Model" not in headers:
        raise ValueError("no header names the model")
    values = {
        header.field: header.read(headers[header.name]) if header.name in headers else header.missing
        for header in ANSWER_HEADERS
    }
    return ServedAnswer(body=body, **values)


def described() -> dict[str, dict[str, Any]]:
    """Return the headers for the OpenAPI document, without ``Content-Type``."""
    return {
        header.name: {"description": header.description, "schema": {"type": "string"}}
        for header in ANSWER_HEADERS
        if header.name != "Content-Type"
    }
