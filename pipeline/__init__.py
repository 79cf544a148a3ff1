"""smt-billing: turns PayPal's subscription webhooks into subscription state and billing e-mails.

The map of the packages is in docs/architecture.md.
"""
