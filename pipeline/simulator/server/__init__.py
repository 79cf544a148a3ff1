"""The simulated PayPal as a server: its REST API, and the webhooks it posts and signs."""
