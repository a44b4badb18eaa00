"""Prove that the store is still what was written: hash chain, verification, damage, pruning."""
