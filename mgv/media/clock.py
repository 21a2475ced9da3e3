"""Clock: one clock for pictures, sound and words, which is zero where the video begins.

A container's own clock may begin anywhere (a broadcast's at ten hours), jump (an advertisement cut in), or wrap (MPEG's
after 26.5 hours). A player shows what follows a jump right after what is before it, and so it is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from av.packet import Packet

LEAST_START_S = 0.1
"""A clock that begins nearer to zero than this begins at zero: encoders lose a frame or two there."""
BACKWARD_S = 10.0
"""A time stamp so much before the one before it in the file: the clock was set back, or wrapped."""
STREAMED = frozenset({"mpegts", "mpeg", "flv", "live_flv", "rtsp"})
"""Formats that are recorded from a running clock; elsewhere a long gap between pictures is a still one."""
FORWARD_S = {True: 10.0, False: 3600.0}
"""A time stamp so much after all before it in the file, by whether the format is STREAMED."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Jump:
    """Where the container's clock jumps."""

    at_s: float
    """From the video's beginning."""
    by_s: float
    """Less than zero: backward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """How a container's time stamps become times from the video's beginning."""

    origin_s: float
    """The container's own time at the video's beginning."""
    jumps: tuple[Jump, ...]
    sound_shifts: tuple[tuple[int, float], ...]
    """(number of a packet of sound, what is added to the time stamps from there on, in seconds), in order."""
    sound_end_s: float | None
    """When the sound ends, from the video's beginning; None without sound."""

    def sound_shift_s(self, packet_number: int) -> float:
        """What is added to the time stamps of a packet of sound."""
        return next(
            (shift for first, shift in reversed(self.sound_shifts) if first <= packet_number),
            -self.origin_s,
        )


@dataclass
class _TrackClock:
    """One track's time stamps in the order of the file."""

    shift_s: float = 0.0
    first_s: float | None = None
    last_s: float | None = None
    """Of the container's clock, as for `newest_s`."""
    step_s: float = 0.0


@dataclass
class ClockReader:
    """Finds a container's clock from its packets, in the order of the file."""

    format: str
    _picture: _TrackClock = field(default_factory=_TrackClock)
    _sound: _TrackClock = field(default_factory=_TrackClock)
    _newest_s: float | None = None
    _jumps: list[tuple[float, float]] = field(default_factory=list)
    """(time in the video with the origin, by how much)."""
    _sound_shifts: list[tuple[int, float]] = field(default_factory=list)
    _num_sounds: int = 0
    _sound_end_s: float | None = None

    def picture(self, packet: Packet[Any], moment: int) -> float:
        """What to add to the time stamps of a packet of pictures, in seconds. moment: its own, in ticks."""
        base_s = float(packet.time_base)
        stamp = packet.dts if packet.dts is not None else moment
        shift_s = self._step(self._picture, stamp * base_s, (packet.duration or 0) * base_s)
        self._picture.first_s = _least(self._picture.first_s, moment * base_s + shift_s)
        return shift_s

    def sound(self, packet: Packet[Any]) -> None:
        """The next packet of sound."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        number, self._num_sounds = self._num_sounds, self._num_sounds + 1
        if stamp is None:
            return
        base_s = float(packet.time_base)
        if self._sound.first_s is None:
            self._sound.first_s = stamp * base_s
        before_s = self._sound.shift_s
        shift_s = self._step(self._sound, stamp * base_s, (packet.duration or 0) * base_s)
        if shift_s != before_s:
            self._sound_shifts.append((number, shift_s))
        end_s = stamp * base_s + shift_s + min((packet.duration or 0) * base_s, 60.0)
        self._sound_end_s = end_s if self._sound_end_s is None else max(end_s, self._sound_end_s)

    def clock(self) -> Clock:
        """The clock, when all packets were seen."""
        starts = [
            track.first_s for track in (self._picture, self._sound) if track.first_s is not None
        ]
        origin_s = min(starts, default=0.0)
        if abs(origin_s) < LEAST_START_S:
            origin_s = 0.0
        return Clock(
            origin_s=origin_s,
            jumps=tuple(Jump(at_s=at_s - origin_s, by_s=by_s) for at_s, by_s in self._jumps),
            sound_shifts=(
                (0, -origin_s),
                *((first, shift_s - origin_s) for first, shift_s in self._sound_shifts),
            ),
            sound_end_s=None if self._sound_end_s is None else self._sound_end_s - origin_s,
        )

    def _step(self, track: _TrackClock, stamp_s: float, duration_s: float) -> float:
        """The next time stamp of a track on the container's clock; what is to be added to it."""
        if track.last_s is not None:
            expected_s = track.last_s + track.step_s
            by_s = stamp_s - expected_s
            newest_s = expected_s if self._newest_s is None else self._newest_s
            is_ahead_of_all = stamp_s - max(expected_s, newest_s) > self._forward_s
            if (
                by_s < -BACKWARD_S
                or (by_s > self._forward_s and is_ahead_of_all)
                or self._follows(track, by_s)
            ):
                track.shift_s -= self._same_as_the_other_track(by_s, expected_s + track.shift_s)
                self._newest_s = stamp_s
        track.last_s = stamp_s
        if 0 < duration_s < self._forward_s:
            track.step_s = duration_s
        self._newest_s = stamp_s if self._newest_s is None else max(self._newest_s, stamp_s)
        return track.shift_s

    @property
    def _forward_s(self) -> float:
        return FORWARD_S[any(name in STREAMED for name in self.format.split(","))]

    def _follows(self, track: _TrackClock, by_s: float) -> bool:
        """Whether a track jumps forward as the other one just did."""
        other = self._sound if track is self._picture else self._picture
        return by_s > self._forward_s and other.shift_s < track.shift_s - self._forward_s / 2

    def _same_as_the_other_track(self, by_s: float, at_s: float) -> float:
        """By how much a jump is taken out: as of the other track, when that has made the same one a little earlier."""
        for known_at_s, known_s in reversed(self._jumps):
            if abs(known_at_s - at_s) < BACKWARD_S and abs(known_s - by_s) < BACKWARD_S:
                return known_s
        self._jumps.append((at_s, by_s))
        return by_s


def _least(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)
