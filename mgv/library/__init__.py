"""Library: LanceDB tables, DVC-versioned raw videos, incremental materialisation, hybrid search."""
