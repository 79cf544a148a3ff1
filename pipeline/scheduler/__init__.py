"""Run jobs at intervals: renewal reminders, operator alerts, and claims of stopped mailers.

scheduler            runs each job when it is due
core_jobs            the jobs below, with their intervals
stale_claims         releases mails claimed by a mailer that died
renewal_reminders    queues reminders before a renewal
operator_alerts      queues mails to the operator about parked events
"""
