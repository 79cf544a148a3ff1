"""Verify PayPal's webhooks and store them durably, before they are answered.

receiver        verifies the signature of a webhook
group_commit    stores concurrent webhooks in one transaction
"""
