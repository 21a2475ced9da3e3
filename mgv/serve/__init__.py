"""Serve: a library over HTTP on this machine: a page for people, an API for programs."""
