"""Which hosts this program may contact, and how the settings name them."""
