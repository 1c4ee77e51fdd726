"""Whatever evaluates a graph."""
