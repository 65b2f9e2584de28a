"""Following the change feed: requests, seconds, and how long a user waits while the rate limit is in force."""
