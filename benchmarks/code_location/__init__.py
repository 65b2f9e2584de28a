"""How long a code location takes to load."""
