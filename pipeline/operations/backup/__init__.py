"""Encrypted backups of the database and its keys, and their restore."""
