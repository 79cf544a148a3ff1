"""Operation of a running system: health, heartbeats, file permissions and backups.

May import privacy, outbox, inbox and the packages below them.
"""
