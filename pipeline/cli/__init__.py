"""The only code that knows Typer, the terminal and exit codes."""
