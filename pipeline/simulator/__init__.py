"""Simulated PayPal for the demo, the command line and tests: signed webhooks, REST API and simulated customers.

    people, plans        the simulated customers and the plans they subscribe to; `varied_plans` has more kinds of plans
    subscription, sale   one subscription at PayPal; each method changes it and adds the webhooks that PayPal would send
    cycles, pricing      which cycle is charged next, and the parts of its charge
    dispute, one_off     a dispute about a sale; an order with its capture and refunds
    account_events       events of plans, prices, products, invoices, saved cards and limitations
    truth                what is true about a subscription, in plain values that a test compares with the product
    scenarios            named scenarios; `vendor_months` simulates a vendor's first months
    simulation           one scenario for several customers, for `smt-billing simulate`
    random_subscription  a random sequence of simple changes that PayPal allows
    random_life          random months that mix everything, with their truth
    timeline             deliveries (event, arrival time, resulting API objects), and disorder
    world                the current state of PayPal's objects
    shapes, ids          PayPal's JSON formats and ids
    server/              REST API, delivery of webhooks, and their signatures

Everything depends only on a seed: the same seed produces the same bytes. Formats follow the webhooks that PayPal really
sends (https://developer.paypal.com/api/rest/webhooks/event-names/).
"""
