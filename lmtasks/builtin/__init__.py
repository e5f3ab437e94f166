"""The built-in recipes: plugins like any other, found through entry points.

The folder is not called ``recipes``, because ``lmtasks.recipes()`` is a function.
"""
