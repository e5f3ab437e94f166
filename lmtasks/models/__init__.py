"""Models, their configurations and processing classes, and what they are found able to do."""
