"""Everything that talks SQL; rows never leave this folder."""
