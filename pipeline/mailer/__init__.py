"""Send queued mails: claim and freeze them, hand them to the SMTP relay, record the results, and resolve mails in doubt."""
