"""Arguments of a pipeline that are a yes or no; known before any of its libraries is imported."""

SWITCHES = (
    "do_sample",
    "use_cache",
    "renormalize_logits",
    "remove_invalid_values",
    "token_healing",
    "return_dict_in_generate",
    "output_scores",
    "output_logits",
    "output_attentions",
    "output_hidden_states",
    "disable_compile",
    "return_full_text",
    "return_text",
    "return_tensors",
    "clean_up_tokenization_spaces",
    "skip_special_tokens",
    "truncation",
)
"""Flags of ``lmtasks predict`` that need no value."""
