"""A classifier and a request become records."""
