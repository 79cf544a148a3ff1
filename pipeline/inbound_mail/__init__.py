"""TODO: what pipeline/inbound_mail is."""
