"""The inbox: stores each received event once, before it is handled.

parsing           splits a webhook body into facts, personal data and the redacted body
redaction         removes card and bank data
store             the table `event`: store, lock, mark, postpone, list due events
event             an event as a handler receives it, and the exceptions that a handler may raise
lookups           pending PayPal API look-ups
lookup_fetcher    makes the look-ups, and stores the answers as events
file_import       imports events from files
"""
