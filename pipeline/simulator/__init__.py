"""A simulated PayPal with simulated customers, who reach the pipeline through its real webhook endpoint.

    people, plans        who subscribes, and to what
    life, sale           one subscription at PayPal: each verb changes it and delivers what PayPal would send
    stories              named scenarios made of those verbs; `vendor_months` plays a vendor's first months
    random_subscription          any sequence of those verbs that PayPal allows
    timeline             a delivery: an event, its time, and what PayPal's API shows from then on; disorder
    world                what PayPal knows at the moment
    shapes, ids          PayPal's JSON and PayPal's ids
    server/              the REST API, the posting of webhooks, and their signatures

Only the demo, the command line and tests import this. Everything is a function of a seed: the same seed, the same bytes.
Shapes follow PayPal's webhooks (https://developer.paypal.com/api/rest/webhooks/event-names/) as they are really sent.
"""
