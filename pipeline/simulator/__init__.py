"""A pretend PayPal and pretend customers, through the real ingress.

    people, plans        who subscribes, and to what
    life                 one subscription at PayPal: each verb changes it and delivers what PayPal would
    stories              named stories made of those verbs; `vendor_months` plays a vendor's first months
    timeline             a delivery: an event, when it comes, and what PayPal's API shows from then on; disorder
    shapes, ids          PayPal's JSON and PayPal's ids
    signing              our own certificate authority, and the headers PayPal signs a webhook with
    deliver              posts deliveries to the ingress over HTTP and tries again as PayPal does
    world, paypal        what PayPal knows by now, and the REST API that is asked for it
    loopback             an ASGI application on a free loopback port, in a thread

Only the command line and tests import this. Everything is a function of a seed: the same seed, the same bytes.
Shapes follow PayPal's webhooks (https://developer.paypal.com/api/rest/webhooks/event-names/) as they are really sent.
"""
