"""``python -m lmtasks_qdqbert BERT FOLDER``: a BERT checkpoint as one of QDQBERT, to be trained further."""

import argparse
from pathlib import Path


def main() -> None:
    """Load under the other model type, and save."""
    parser = argparse.ArgumentParser(
        prog="python -m lmtasks_qdqbert", description="Save a BERT checkpoint as one of QDQBERT, to be trained further."
    )
    parser.add_argument("bert", metavar="BERT", help="folder or Hub id of the BERT checkpoint")
    parser.add_argument("folder", metavar="FOLDER", help="where to save it; must not be there yet")
    arguments = parser.parse_args()
    if Path(arguments.folder).exists():
        parser.error(f"'{arguments.folder}' is there already")

    from transformers import AutoConfig, AutoTokenizer

    from lmtasks_qdqbert.model import QDQBertConfig, QDQBertForMaskedLM

    try:
        fields = AutoConfig.from_pretrained(arguments.bert).to_dict()
        tokenizer = AutoTokenizer.from_pretrained(arguments.bert)
    except (OSError, ValueError) as error:
        parser.error(f"'{arguments.bert}' cannot be read: {str(error).splitlines()[0]}")
    if fields.pop("model_type") != "bert":
        parser.error(f"'{arguments.bert}' is no BERT checkpoint")
    model = QDQBertForMaskedLM.from_pretrained(arguments.bert, config=QDQBertConfig(**fields))
    model.save_pretrained(arguments.folder)
    tokenizer.save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()
