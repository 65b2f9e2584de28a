"""First load, unchanged re-read and 2,000 changes: the floor, this package, and the loaders that people use."""
