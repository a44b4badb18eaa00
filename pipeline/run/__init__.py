"""One run, from the order to the books."""
