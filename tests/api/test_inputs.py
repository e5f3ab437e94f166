"""What a loss reads: inputs without what is for the loss, which positions hold a token, the model in a wrapper."""

import torch

from lmtasks import model_inputs, stack, token_mask, unwrapped


class Tokenizer:
    pad_token_id = 0


def test_a_model_gets_neither_labels_nor_the_smoothing_and_the_batch_stays_whole() -> None:
    batch = {"input_ids": torch.ones(1, 2), "labels": torch.ones(1, 2), "label_smoothing": 0.1, "token_type_ids": 3}
    assert model_inputs(batch).keys() == {"input_ids", "token_type_ids"}
    assert len(batch) == 4


def test_padding_holds_no_token_and_without_padding_every_position_does() -> None:
    padded = stack([{"input_ids": [5, 6, 0]}, {"input_ids": [7]}], Tokenizer())
    assert token_mask(padded).tolist() == [[True, True, True], [True, False, False]]
    whole = stack([{"input_ids": [5, 0]}], Tokenizer())
    assert token_mask(whole).tolist() == [[True, True]]
    assert token_mask(whole).dtype == torch.bool


def test_a_wrapper_is_taken_off_and_a_model_without_one_stays() -> None:
    model = torch.nn.Linear(1, 1)
    assert unwrapped(model) is model
    assert unwrapped(torch.nn.DataParallel(model)) is model
