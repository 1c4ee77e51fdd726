"""Passes over emitted graphs."""
