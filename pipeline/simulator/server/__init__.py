"""The simulated PayPal over HTTP: its REST API, and the delivery of signed webhooks.

api                   the ASGI application: tokens, faults, errors
operations            all calls by method and path
answers               a call, an answer, an error; parameters that several calls share
feed                  events that calls cause, and repeated request ids
subscriptions         create and revise a subscription; approval_page is the page of the buyer
subscription_actions  cancel, suspend, activate, capture, PATCH
listings              lists of subscriptions, transactions and disputes
payments, reporting   refunds; Transaction Search and balances
catalog, plan_prices  products and plans; a plan of the API as the simulator charges it
webhooks              webhooks of the app, test events (mock_events), check of a signature; event_types are all names
webhook_events        events of the last 30 days, resending
faults                failing requests, late objects, lost and late webhooks
delivery, dispatch    send webhooks to one URL, or to the webhooks that were registered
signing, loopback     keys and signatures; serve on a loopback port
"""
