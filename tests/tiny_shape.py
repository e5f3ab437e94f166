"""The shape of the tiny models, for fixtures and for tests that build one of their own."""

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}
"""66 positions are 64 for RoBERTa, whose padding takes two."""
