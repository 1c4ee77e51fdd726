"""One file a form of output."""
