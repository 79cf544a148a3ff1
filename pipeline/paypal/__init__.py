"""PayPal: API client, webhook signatures and certificates, and parsing of PayPal's resources.

Imports `network` and the small modules next to the packages.
"""
