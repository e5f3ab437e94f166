"""The commands that are built in; extensions may bring others."""

COMMANDS = {
    "run": ("RECIPE [flags]", "train; with no flags, a small model"),
    "data": ("RECIPE [flags]", "what it would train on, as models see it"),
    "predict": ("RUN_OR_MODEL TEXT...", "use it"),
    "evaluate": ("RUN_OR_MODEL [flags]", "measure it"),
    "report": ("RUN... [--output FILE]", "a page about it, or about several runs"),
    "merge": ("RUN OUT", "one model of an adapter and its base"),
    "runs": ("[FOLDER]", "the runs below a folder, with figures"),
    "push": ("RUN REPO_ID", "publish it"),
    "list": ("", "the recipes that are installed"),
    "show": ("RECIPE", "one recipe in detail"),
    "schema": ("RECIPE", "what its YAML may hold (JSON Schema)"),
    "architectures": ("[RECIPE]", "the model types that it trains"),
    "plugins": ("", "what brought them, and what is broken"),
    "doctor": ("", "what is installed, and what is broken"),
    "completion": ("bash|zsh|fish", "what makes TAB complete all of this"),
    "new-plugin": ("NAME", "a package for recipes of your own"),
}
"""The commands: what each takes, and what it does."""

PEERS = {
    "train": "run",
    "finetune": "run",
    "fine-tune": "run",
    "fit": "run",
    "sft": "run",
    "pretrain": "run",
    "chat": "predict",
    "generate": "predict",
    "infer": "predict",
    "inference": "predict",
    "pipeline": "predict",
    "eval": "evaluate",
    "test": "evaluate",
    "perplexity": "evaluate",
    "validate": "evaluate",
    "export": "merge",
    "upload": "push",
    "publish": "push",
    "env": "doctor",
    "info": "show",
    "models": "architectures",
    "preview": "data",
    "init": "new-plugin",
    "version": "--version",
}
"""Names that other tools have for commands, and those that they have here."""
