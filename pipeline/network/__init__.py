"""Allow-list of the hosts that this program may contact, and the URL of the SMTP relay."""
