"""Erasure of a customer: `workflow` waits, notifies PayPal and the product, and confirms; `shredding` changes the tables."""
