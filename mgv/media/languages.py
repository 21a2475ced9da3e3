"""Languages: which language a code or a name in a file's name stands for."""

from __future__ import annotations

from functools import cache

import pycountry

_NATIVE = {
    "deutsch": "de", "français": "fr", "francais": "fr", "español": "es", "espanol": "es", "castellano": "es",
    "italiano": "it", "português": "pt", "portugues": "pt", "brazilian": "pt", "nederlands": "nl", "polski": "pl",
    "русский": "ru", "українська": "uk", "čeština": "cs", "magyar": "hu", "română": "ro", "türkçe": "tr",
    "svenska": "sv", "dansk": "da", "norsk": "no", "suomi": "fi", "ελληνικά": "el", "العربية": "ar", "עברית": "he",
    "中文": "zh", "简体中文": "zh", "繁體中文": "zh", "日本語": "ja", "한국어": "ko", "ไทย": "th", "हिन्दी": "hi",
    "chinese": "zh", "mandarin": "zh", "cantonese": "zh", "greek": "el", "farsi": "fa", "chs": "zh", "cht": "zh",
    "pob": "pt", "jp": "ja", "iw": "he", "jw": "jv",
}  # fmt: skip
"""Names as their speakers write them, and codes that players use besides those of ISO 639."""


@cache
def _codes() -> dict[str, str]:
    """Codes and English names, in lower case -> two letters.

    Only languages with a two-letter code (ISO 639-1): of the three-letter ones `cut`, `two` and `day` are languages
    too, and more often words.
    """
    codes = dict(_NATIVE)
    for language in pycountry.languages:
        two = getattr(language, "alpha_2", None)
        if two is None:
            continue
        names = (two, language.alpha_3, getattr(language, "bibliographic", ""), language.name)
        codes |= {name.lower(): two for name in names if name}
    return codes


def language_of(token: str) -> str | None:
    """The two-letter code of `en`, `eng`, `en-US`, `pt_BR`, `English`, `Deutsch`; None for what is no language."""
    whole = token.strip().lower()
    if whole in _codes():
        return _codes()[whole]
    base, separator, _ = whole.replace("_", "-").partition("-")
    return _codes().get(base) if separator and len(base) in (2, 3) else None
