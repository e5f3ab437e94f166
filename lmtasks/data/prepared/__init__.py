"""Prepared data: examples as immutable shards with a manifest, written once and read from anywhere."""
