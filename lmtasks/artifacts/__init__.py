"""The run folder, its model card, and what is published of it."""
