"""What other limits would have done to the attempts on record; nothing is sent or written."""
