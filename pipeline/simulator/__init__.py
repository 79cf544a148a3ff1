"""Simulated PayPal for the demo, the command line and tests: signed webhooks, REST API and simulated customers.

    people, plans        the simulated customers and the plans they subscribe to
    subscription, sale   one subscription at PayPal; each method changes it and adds the webhooks that PayPal would send
    scenarios            named scenarios; `vendor_months` simulates a vendor's first months
    simulation           one scenario for several customers, for `smt-billing simulate`
    random_subscription  a random sequence of changes that PayPal allows
    timeline             deliveries (event, arrival time, resulting API objects), and disorder
    world                the current state of PayPal's objects
    shapes, ids          PayPal's JSON formats and ids
    server/              REST API, delivery of webhooks, and their signatures

Everything depends only on a seed: the same seed produces the same bytes. Formats follow the webhooks that PayPal really
sends (https://developer.paypal.com/api/rest/webhooks/event-names/).
"""
