"""HDR: pictures of high dynamic range as a player shows them on an ordinary screen.

ITU-R BT.2100-2 (PQ, HLG), BT.2087 (BT.2020 to BT.709 primaries), BT.2408 (203 cd/m2 is the white of ordinary pictures).
H, W pixels.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

PQ, HLG = 16, 18
"""Transfer characteristics, as H.273 numbers them."""
_BT2020 = 9
WHITE_CD_M2 = 203.0
HLG_PEAK_CD_M2 = 1000.0
HLG_SYSTEM_GAMMA = 1.2
DISPLAY_GAMMA = 2.2
"""Of an ordinary screen, about (sRGB)."""
KNEE = 0.8
"""Up to this share of white nothing is compressed."""
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)


def is_hdr(frame: VideoFrame) -> bool:
    """Whether a frame's values stand for more light than an ordinary screen gives."""
    return frame.color_trc in (PQ, HLG)


def tone_mapped(frame: VideoFrame, width: int, height: int) -> NDArray[np.uint8]:
    """A PQ or HLG frame as [H, W, 3] for an ordinary screen."""
    wide = frame.reformat(width=width, height=height, format="rgb48le", src_colorspace=_BT2020)
    signal = np.asarray(wide.to_ndarray(), dtype=np.float32) / np.float32(65535)
    light = pq_light(signal) if frame.color_trc == PQ else hlg_light(signal)
    linear = compressed(light / WHITE_CD_M2) @ _TO_BT709.T
    shown = np.clip(linear, 0.0, 1.0) ** (1 / DISPLAY_GAMMA)
    return np.asarray(np.rint(shown * 255), dtype=np.uint8)


def pq_light(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """PQ signal in [0, 1] -> light in cd/m2 (BT.2100 table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = signal ** (1 / m2)
    return np.asarray(
        10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1), dtype=np.float32
    )


def hlg_light(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """HLG signal [..., 3] in [0, 1] -> light in cd/m2 of a screen of 1000 cd/m2 (BT.2100 table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = np.maximum(scene @ _LUMINANCE, 1e-6)[..., None]
    return np.asarray(
        HLG_PEAK_CD_M2 * luminance ** (HLG_SYSTEM_GAMMA - 1) * scene, dtype=np.float32
    )


def compressed(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light as a share of white [..., 3] -> the same up to KNEE, all that is brighter bent to stay below white."""
    peak = linear.max(axis=-1, keepdims=True)
    above = np.maximum(peak - KNEE, 0.0) / (1 - KNEE)
    bent = np.where(peak > KNEE, KNEE + (1 - KNEE) * above / (1 + above), peak)
    return np.asarray(linear * (bent / np.maximum(peak, 1e-6)), dtype=np.float32)
