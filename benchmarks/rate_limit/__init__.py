"""One tenant's rate limit, used by several processes at once."""
