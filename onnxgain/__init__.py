"""Measures how an exported image classifier responds to spatial frequencies, without any data."""
