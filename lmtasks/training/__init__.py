"""Training, and evaluation while it goes on and after it."""
