"""PayPal's side: its API, the shape of its objects, and the proof that a webhook is its own.

api                    read objects, create and cancel subscriptions
client                 the SDK's client with time-outs, one token, and errors that a caller can act on
requests               the requests that `api` makes
errors                 what can go wrong
resources              PayPal's objects, old and new, read into one shape
references             the ids in an event of an unknown type that say whose it is
signature              the headers of a delivery, and whether PayPal signed it
certificates           PayPal's signing certificates: downloaded, kept
certificate_rules      the checks that such a certificate and its address must pass
signature_diagnosis    the same checks one by one, for the operator
"""
