"""HTTP application: webhook endpoint, customer pages, `/healthz` and `/metrics`.

May import the packages below it in docs/architecture.md, except `policy`.
"""
