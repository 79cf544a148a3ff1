"""TODO: what pipeline/mailer is."""
