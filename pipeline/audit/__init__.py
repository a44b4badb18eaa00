"""Judge what is stored: findings, availability, single attempts, replay, dossiers, verification."""
