"""Periodic work: the engine, and the jobs of the pipeline itself.

scheduler            the engine: runs each job when it is due
core_jobs            the jobs below, each with its interval
stale_claims         mails that a dead mailer was sending
renewal_reminders    reminders before a renewal
operator_alerts      mails to the operator about parked events
"""
