"""One way to talk HTTP: bounded calls, one retry layer, a rate budget, typed errors, redaction."""
