"""Operation of a running system: health, heartbeats, file permissions and backups."""
