"""The runner: a checked request carried out, from preparation to the published result."""
