"""The web application: pages, endpoints, and what they share."""
