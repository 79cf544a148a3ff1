"""The simulated PayPal over HTTP: its REST API, and the delivery of signed webhooks."""
