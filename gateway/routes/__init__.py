"""One file for each kind of path. A handler parses, calls and wraps; it decides nothing."""
