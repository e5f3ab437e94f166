"""The commands that are built in; extensions may bring others."""

COMMANDS = {
    "run": ("RECIPE [flags]", "train; with no flags, a small model in a minute"),
    "data": ("RECIPE [flags]", "what it would train on, as the model sees it"),
    "predict": ("RUN_OR_MODEL TEXT...", "use it"),
    "evaluate": ("RUN_OR_MODEL [flags]", "measure it"),
    "merge": ("RUN OUT", "make one model of an adapter and its base"),
    "push": ("RUN REPO_ID", "publish it"),
    "list": ("", "the recipes that are installed"),
    "show": ("RECIPE", "one recipe in detail"),
    "schema": ("RECIPE", "what its YAML may hold, as JSON Schema"),
    "architectures": ("[RECIPE]", "the model types that it trains, and what is known of each"),
    "plugins": ("", "what brought the recipes, and what is broken"),
    "doctor": ("", "what is installed, what is there, and what is broken"),
    "new-plugin": ("NAME", "a package with a recipe or an architecture of your own"),
}
"""The commands: what each takes, and what it does."""
