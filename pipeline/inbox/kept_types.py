"""Types of PayPal's events that are stored and change nothing, each with the reason.

https://developer.paypal.com/api/rest/webhooks/event-names/ . A type that is in no handler and not here is unknown.
"""

# By the beginning of the type; "*" stands for the rest.
KEPT_TYPES = {
    "BILLING_AGREEMENTS.AGREEMENT.": "An agreement for reference transactions is no subscription; its payments have own events.",
    "CATALOG.PRODUCT.": "Products change no price; the events of plans do.",
    "CHECKOUT.ORDER.": "The capture of an order has its own event; the facts keep the order's amounts.",
    "CHECKOUT.PAYMENT-APPROVAL.": "A payment that the buyer approved and PayPal took back was never captured.",
    "CUSTOMER.MERCHANT-INTEGRATION.": "The capabilities of connected accounts concern platforms.",
    "INVOICING.INVOICE.": "An invoice that is created, scheduled or changed is not paid yet.",
    "PAYMENT.AUTHORIZATION.": "An authorization is no payment until it is captured.",
    "PAYMENT.ORDER.": "An order of the old API is no payment until it is captured.",
    "PAYMENTS.PAYMENT.": "A payment of the old API is announced; its sale has its own event.",
    "RISK.DISPUTE.": "PayPal's old duplicate of CUSTOMER.DISPUTE.CREATED.",
    "VAULT.": "A saved payment method moves no money.",
}
UNKNOWN = "no handler for this type of event"


def ignored_reason(type: str) -> str:
    """Return why an event of a type without a handler changes nothing."""
    return next((f"kept: {reason}" for prefix, reason in KEPT_TYPES.items() if type.startswith(prefix)), UNKNOWN)
