"""Library: LanceDB tables, DVC-versioned raw videos, incremental materialisation, hybrid search."""

from mgv.library.lance_import import defer_rest_client

defer_rest_client()  # before anything here imports lancedb
