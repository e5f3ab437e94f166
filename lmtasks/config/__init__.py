"""From values, however they were given, to a checked request."""
