"""The lines between a worker and whoever follows it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from TomoSegLib.jobs.client import EventStream
from TomoSegLib.jobs.events import (
    ErrorEvent,
    Event,
    PreviewEvent,
    ProgressEvent,
    ResultEvent,
    StartedEvent,
    WarningEvent,
    decode,
    encode,
)

EVENTS: list[Event] = [
    StartedEvent("run", 42, "0.1.0"),
    ProgressEvent("heatmap", 3, 64, 12.5, "cuda:0", 812.0, 97.5),
    ProgressEvent("read", 0, 0),
    PreviewEvent("/tmp/Ä ö/preview.nrrd", 8),
    WarningEvent("spacing", "Line one\nline two", "a hint"),
    ResultEvent("/tmp/out"),
    ResultEvent(None, {"devices": [{"name": "cpu"}]}),
    ErrorEvent("internal", "Oh.", "Report it.", traceback="Traceback ...\n  line\n"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.event)
def test_an_event_is_one_ascii_line_and_comes_back_as_it_was(event: Event) -> None:
    line = encode(event)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and line.isascii()
    assert decode(line) == event


def test_numbers_that_json_does_not_know_become_null() -> None:
    line = encode(ProgressEvent("heatmap", 0, 1, eta_s=float("inf")))
    assert json.loads(line)["eta_s"] is None


def test_fields_of_a_newer_worker_are_passed_over() -> None:
    line = b'{"event":"preview","path":"a","directions":4,"colour":"red"}'
    assert decode(line) == PreviewEvent("a", 4)


@pytest.mark.parametrize(
    "line",
    [
        b"Loading libfoo ...",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"event":"party"}',
        b'{"event":["started"]}',
        b'{"event":"preview"}',
        b'{"event":"preview","path":7,"directions":4}',
        b'{"event":"progress","stage":"read","done":true,"total":1}',
    ],
)
def test_a_line_that_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        decode(line)


@given(st.lists(st.integers(1, 60), max_size=30))
def test_a_stream_may_be_cut_anywhere(sizes: list[int]) -> None:
    data = b"".join(map(encode, EVENTS))
    stream = EventStream()
    events: list[Event] = []
    for size in sizes:
        events += stream.feed(data[:size])
        data = data[size:]
    events += stream.feed(data) + stream.close()
    assert events == EVENTS


def test_garbage_becomes_warnings_but_not_without_end() -> None:
    stream = EventStream()
    events = stream.feed(b"noise\n" * 1000 + encode(EVENTS[0]))
    assert events[-1] == EVENTS[0]
    assert [event.code for event in events[:-1] if isinstance(event, WarningEvent)] == (
        ["worker-output"] * 20
    )


def test_garbage_without_a_newline_is_not_kept_without_end() -> None:
    stream = EventStream()
    for _ in range(40):
        stream.feed(b"x" * 1_000_000)
    assert len(stream._rest) <= 1 << 23


def test_a_last_line_without_its_newline_counts() -> None:
    stream = EventStream()
    assert stream.feed(encode(EVENTS[0])[:-1]) == []
    assert stream.close() == [EVENTS[0]]
