"""Reads a forward graph: transcription into checked standard operators, with rewrites of those that need it."""
