"""Media: a file's facts, its frames, its sound, its subtitles. Only this folder touches a codec."""
