"""What it costs when there is nothing to do."""
