"""Ask PayPal what was missed: webhook events, changed subscriptions, and money. It may import `inbox`, `paypal` and `db`.

events           webhook events that never arrived enter the inbox
subscriptions    subscriptions that PayPal changed are looked up
money            PayPal's transactions are compared with payments and refunds
exceptions       differences that stay after a look-up: open until they are gone or ignored
run              one reconciliation from the last one's end until now
"""
