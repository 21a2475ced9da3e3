"""Features: what the frozen vision encoder sees in a sample's frames, kept so that each video is looked at once.

The encoder learns in no published stage, so its patch features are a function of the video, the encoder's weights and
the instants looked at. They are kept as float16 in a Lance table, and rounded to it also when they are not kept: a
loss is the same with and without. T frames, N vision tokens, V vision width.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mgv.model.looking import read_sample, see
from mgv.model.processor import Clip, Processor
from mgv.model.video_llm import VideoLLM
from mgv.records import Sample

logger = logging.getLogger(__name__)

TABLE = "features_3"
"""Its number goes up with its form; a table of another form is not read but removed."""
ROWS_PER_WRITE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFeatures:
    """What was seen, and when."""

    features: Tensor
    """float16 [T, N, V]"""
    times_s: tuple[float, ...]
    frame_rate: float
    """Of the video; 0 for an image."""

    def clip(self, sample: Sample, subtitles: bool = True) -> Clip:
        """The sample as it was looked at, to ask about."""
        return Clip(
            question="",
            features=self.features,
            frame_times_s=self.times_s,
            cues=sample.cues if subtitles else (),
            frame_rate=self.frame_rate,
            is_image=sample.is_image,
        )


class FeatureExtractor:
    """Samples -> features, through the cache where there is one. Their media lie relative to `root`."""

    def __init__(
        self,
        model: VideoLLM,
        processor: Processor,
        cache: FeatureCache | None = None,
        root: Path = Path(),
    ) -> None:
        self.model, self.processor, self.cache, self._root = model, processor, cache, root
        config = processor.config
        self._encoder = (
            f"{fingerprint(model.vision_encoder)}|{config.pixels}|{config.image_size_px}"
        )
        self._rule = f"{processor.frame_rule}|{config.limits.num_frames}"

    def key(self, sample: Sample) -> str:
        """What the features depend on, as a digest: another connector finds those it shares the rule of."""
        taken = "image" if sample.is_image else f"{sample.start_s!r}|{sample.end_s!r}|{self._rule}"
        return hashlib.sha256(f"{sample.media_id}|{self._encoder}|{taken}".encode()).hexdigest()

    def look(self, sample: Sample) -> ClipFeatures:
        """The features of one sample. Raises MediaError for an unreadable file."""
        cached = self.cache.read([self.key(sample)]) if self.cache else {}
        return next(iter(cached.values())) if cached else self._encode(sample)

    def look_all(self, samples: Sequence[Sample]) -> list[ClipFeatures]:
        """The same for several, with one read of the cache."""
        keys = [self.key(sample) for sample in samples]
        cached = self.cache.read(keys) if self.cache else {}
        return [
            cached.get(key) or self._encode(sample)
            for key, sample in zip(keys, samples, strict=True)
        ]

    def keep(self, samples: Iterable[Sample], progress: Callable[[int], None] | None = None) -> int:
        """Encode and keep what is not there yet, up to the cache's bound; how many were encoded."""
        assert self.cache is not None, "there is no cache to keep features in"
        waiting: dict[str, ClipFeatures] = {}
        num_encoded = 0
        try:
            for sample in samples:
                if progress:
                    progress(1)
                key = self.key(sample)
                if key in self.cache or key in waiting or self.cache.is_full:
                    continue
                waiting[key] = self._encode(sample)
                num_encoded += 1
                if len(waiting) >= ROWS_PER_WRITE:
                    self.cache.write(waiting)
                    waiting = {}
        finally:  # a file that cannot be read loses none of those before it
            self.cache.write(waiting)
        return num_encoded

    def _encode(self, sample: Sample) -> ClipFeatures:
        """Decode and encode, one sample at a time: the floats are the same whoever its neighbours are."""
        clip = read_sample(sample, self.processor, self._root)
        features = see(clip, self.model, self.processor).cpu()
        return ClipFeatures(
            features=features, times_s=clip.frame_times_s, frame_rate=clip.frame_rate
        )


class FeatureCache:
    """A Lance table of features by key, with an upper bound on its size. Several processes may fill it at once."""

    def __init__(self, folder: Path, max_gb: float) -> None:
        import lancedb
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._max_bytes = folder, max_gb * 1e9
        self._lock = FileLock(folder / ".lock")
        database = lancedb.connect(folder)
        with (
            self._lock
        ):  # of two processes that make a table at once, the second empties it (lancedb 0.40)
            for name in database.list_tables().tables:
                if name != TABLE:
                    logger.warning(
                        "%s: kept by another version in another form; looked at again", folder
                    )
                    database.drop_table(name, ignore_missing=True)
            self._table: Any = database.create_table(TABLE, schema=_schema(), exist_ok=True)
        self._find()

    def _find(self) -> None:
        """Where each key's row is; rows are only ever added."""
        rows = self._table.search().select(["key", "num_bytes"]).limit(None).to_arrow()
        self._places = {key: place for place, key in enumerate(rows["key"].to_pylist())}
        self._num_rows = len(rows)
        self.num_bytes = sum(rows["num_bytes"].to_pylist())

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_full(self) -> bool:
        """Whether its bound is reached; what is not kept is encoded each time."""
        return bool(self.num_bytes >= self._max_bytes)

    def read(self, keys: Sequence[str]) -> dict[str, ClipFeatures]:
        """Those of the keys that are kept."""
        places = sorted({self._places[key] for key in keys if key in self._places})
        if not places:
            return {}
        rows = self._table.take_offsets(places).to_arrow().to_pylist()
        return {row["key"]: _look(row) for row in rows}

    def write(self, looks: dict[str, ClipFeatures]) -> None:
        """Add rows, in one version of the table; what another process has added since is left out."""
        if not looks:
            return
        with self._lock:
            self._table.checkout_latest()
            if self._table.count_rows() != self._num_rows:
                self._find()
            rows = [_row(key, look) for key, look in looks.items() if key not in self]
            if rows:
                self._table.add(rows)
        self._places |= {row["key"]: self._num_rows + i for i, row in enumerate(rows)}
        self._num_rows += len(rows)
        self.num_bytes += sum(row["num_bytes"] for row in rows)
        if self.is_full:
            logger.warning("%s: %.1f GB, its bound (train.cache_max_gb): the rest is not kept",
                           self.folder, self.num_bytes / 1e9)  # fmt: skip


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("key", pa.string()),
            pa.field("times_s", pa.list_(pa.float64())),
            pa.field("frame_rate", pa.float64()),
            pa.field("num_tokens", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("num_bytes", pa.int64()),
            pa.field("features", pa.large_binary()),
        ]
    )


def _row(key: str, look: ClipFeatures) -> dict[str, Any]:
    data = look.features.contiguous().numpy().tobytes()
    _, num_tokens, width = look.features.shape
    return {"key": key, "times_s": list(look.times_s), "frame_rate": look.frame_rate, "num_tokens": num_tokens,
            "width": width, "num_bytes": len(data), "features": data}  # fmt: skip


def _look(row: dict[str, Any]) -> ClipFeatures:
    flat = torch.from_numpy(np.frombuffer(row["features"], dtype=np.float16).copy())
    features = flat.view(len(row["times_s"]), row["num_tokens"], row["width"])
    return ClipFeatures(
        features=features, times_s=tuple(row["times_s"]), frame_rate=row["frame_rate"]
    )


def fingerprint(module: nn.Module) -> str:
    """What tells one set of weights from another: every tensor's name and shape and some of its values."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{list(tensor.shape)}".encode())
        places = torch.linspace(
            0, tensor.numel() - 1, min(16, tensor.numel()), dtype=torch.float64
        ).long()
        values = tensor.detach().flatten()[places.to(tensor.device)].float().cpu().numpy()
        digest.update(np.round(values, 4).tobytes())
    return digest.hexdigest()[:16]
