"""OCR: only frames that changed are read."""

import numpy as np
import pytest

from mgv.config import PartParams
from mgv.encoders import ocr
from mgv.encoders.parts import load_screen_reader
from mgv.errors import ConfigError


class Engine:
    """Answers with the number of the call; keeps what it was shown."""

    def __init__(self):
        self.shown = []

    def __call__(self, image):
        self.shown.append(image)
        return [[None, f"page {len(self.shown)}", 0.9], [None, "smudge", "0.3"]], [0.1]


def page(level: int) -> np.ndarray:
    return np.full((90, 160, 3), level, dtype=np.uint8)


def test_a_frame_like_the_one_last_read_has_its_text():
    engine = Engine()
    frames = np.stack([page(0), page(3), page(200), page(203), page(0)])
    assert ocr.RapidOcr(engine).read(frames) == ["page 1", "page 1", "page 2", "page 2", "page 3"]
    assert len(engine.shown) == 3


def test_a_line_of_new_words_is_a_change_and_noise_is_not():
    before, after = page(255), page(255)
    after[40:50, 20:120] = 0
    assert ocr.changed(ocr.luma_grid(before), ocr.luma_grid(after))
    noisy = before - np.random.default_rng(0).integers(0, 10, before.shape, dtype=np.uint8)
    assert not ocr.changed(ocr.luma_grid(before), ocr.luma_grid(noisy))


def test_frames_reach_the_engine_as_blue_green_red():
    engine = Engine()
    frame = page(0)
    frame[..., 0] = 255
    ocr.RapidOcr(engine).read(frame[None])
    assert engine.shown[0][0, 0].tolist() == [0, 0, 255]


def test_no_lines_are_an_empty_text():
    assert ocr.RapidOcr(lambda image: (None, None)).read(page(0)[None]) == [""]


def test_none_reads_nothing_and_a_missing_package_is_named(monkeypatch):
    assert load_screen_reader(PartParams(name="none")) is None
    monkeypatch.setitem(__import__("sys").modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ConfigError, match="rapidocr is not installed; run pip install"):
        load_screen_reader(PartParams(name="rapidocr"))
    with pytest.raises(ConfigError, match="only its own models"):
        load_screen_reader(PartParams(name="rapidocr", pretrained="other"))
