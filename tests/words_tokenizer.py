"""A tokenizer whose tokens are numbers, so that a test can say which ids it expects."""

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = 20


def words_tokenizer(template: str = "$A", **special: str) -> PreTrainedTokenizerFast:
    """Word "7" is token 7; special tokens follow from 20 on, in the order given."""
    vocabulary = {str(number): number for number in range(WORDS)} | {"a": WORDS}
    for token in special.values():
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in special.values()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
