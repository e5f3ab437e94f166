"""One module for each kind of data file: from a file in UTF-8, or a binary one, to rows."""
