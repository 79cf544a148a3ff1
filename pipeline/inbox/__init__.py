"""The inbox: each event that PayPal reports, stored once before it is handled.

parsing           a webhook body, taken apart into facts, personal data and the redacted rest
redaction         card and bank data is removed
store             the table: store, lock, mark, postpone, list what is due
event             an event as a handler receives it, and the exceptions that a handler may raise
lookups           pending PayPal look-ups
lookup_fetcher    asks PayPal, and stores the answers as events
file_import       events from files
"""
