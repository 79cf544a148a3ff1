"""What people may ask of us, and what the vendor's policy promises them: export, erasure, retention, and their proof."""
