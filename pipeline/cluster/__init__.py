"""Workers on any number of machines that share the runs of one PostgreSQL store."""
