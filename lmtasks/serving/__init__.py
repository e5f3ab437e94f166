"""A model that others ask: over HTTP, and on a page with things to click."""
