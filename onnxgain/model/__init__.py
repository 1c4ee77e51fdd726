"""A file becomes a described classifier."""
