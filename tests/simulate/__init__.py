"""What other limits would have done."""
