"""Whether a record and a change cost the same, however many there are."""
