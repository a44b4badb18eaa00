"""What is stored, as tables for other programs: which rows, and how a file spells them."""
