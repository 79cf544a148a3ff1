"""Changes at PayPal that an operator or customer orders: stored first, then carried out once, whatever breaks between.

order      what can be ordered, and the checks before
perform    the call to PayPal, its outcome, and another attempt if PayPal is away
It may import `inbox`, `paypal` and `db`. Commands, pages and jobs call it; state changes only when PayPal reports it.
"""
