"""What the runs add up to: runs, batches, timings, errors, numbers, sources, slots."""
