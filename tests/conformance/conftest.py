"""Adapters import what may be absent; only the tests that use one are to say so."""

collect_ignore_glob = ["*_peer.py"]
