"""Text as tokens, and tokens as packed examples."""
