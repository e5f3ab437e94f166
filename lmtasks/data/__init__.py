"""From documents to the examples that a model is trained on."""
