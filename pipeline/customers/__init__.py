"""Customer accounts, sign-up, sign-in links, consent, newsletter, unsubscribe, rate limits and the product hook.

May import inbox, outbox, rendering, crypto, network and db.
"""
