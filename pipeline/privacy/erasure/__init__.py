"""A customer is erased: `workflow` waits, tells PayPal and the product, and confirms; `shredding` changes the tables."""
