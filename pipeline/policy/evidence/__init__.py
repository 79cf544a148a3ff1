"""Sources that the checks inspect: database, web pages, mails, connections, and journald's settings."""
