"""Installed plugins, what they bring, and what is known of model types."""
