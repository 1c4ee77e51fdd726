"""Results as text: tables for a terminal, Markdown, JSON, CSV, JUnit, workflow commands."""
