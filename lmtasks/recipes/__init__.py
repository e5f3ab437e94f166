"""The built-in recipes: plugins like any other, found through entry points."""
