"""The console: what comes from outside is shown by a terminal, never obeyed; progress says how long the rest takes."""

from __future__ import annotations

import json
import logging

import pytest

from mgv.cli.console import SafeHandler, SecondsProgress, printable, remaining_s, show

HOSTILE = "\x1b]0;owned\x07\x9b2J \u202egpj.exe \x00\ud800"


def test_escapes_and_turned_text_are_shown(capsys: pytest.CaptureFixture[str]):
    show(False, None, f"line one\n{HOSTILE}")
    assert capsys.readouterr().out == (
        "line one\n\\x1b]0;owned\\x07\\x9b2J \\u202egpj.exe \\x00\\ud800\n"
    )


def test_json_stays_json_and_says_the_same(capsys: pytest.CaptureFixture[str]):
    show(True, {"text": HOSTILE, "name": "日本\u200d"}, "")
    out = capsys.readouterr().out
    assert json.loads(out) == {"text": HOSTILE, "name": "日本\u200d"}
    assert not set(out) & set("\x1b\x07\x9b\u202e\x00")


def test_what_people_write_is_left_as_it_is():
    text = "naïve\u00a0café – 采购订单 می\u200cخواهم 👩\u200d🚀 “so”"
    assert printable(text) == text


def test_warnings_are_escaped(capsys: pytest.CaptureFixture[str]):
    handler = SafeHandler()
    handler.emit(logging.makeLogRecord({"msg": "%s: no", "args": ("a\x1b[2Jb.mp4",)}))
    assert capsys.readouterr().err == "a\\x1b[2Jb.mp4: no\n"


def test_the_time_left_is_by_the_mean_speed():
    assert remaining_s(10.0, 100.0, 1000.0) == 90.0
    assert remaining_s(0.5, 100.0, 1000.0) is None
    assert remaining_s(10.0, 1000.0, 1000.0) is None


def test_a_pipe_gets_a_line_for_each_video_in_seconds_of_video(capsys: pytest.CaptureFixture[str]):
    progress = SecondsProgress("materialize")
    progress.plan({"a.mp4": 60.0, "b.mp4": 180.0})
    progress.step("a.mp4", "frames", 1.0)
    assert "0:24 of 4:00 of video" in progress.times()  # 0.4 of a minute
    progress.step("a.mp4", "done", 1.0)
    assert capsys.readouterr().err == "materialize 1/2  1:00 of 4:00 of video  a.mp4\n"
