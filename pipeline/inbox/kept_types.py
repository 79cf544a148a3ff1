"""Types of PayPal's events that are stored and change nothing, each with the reason.

https://developer.paypal.com/api/rest/webhooks/event-names/ . A type that is in no handler and not here is unknown.
"""

_UNPAID_INVOICE = "An invoice that is created, scheduled or changed is not paid yet."
_PAYOUT = "The vendor paid somebody; no customer paid."
# A name that ends with a dot stands for all types that begin with it.
KEPT_TYPES = {
    "BILLING_AGREEMENTS.AGREEMENT.": "An agreement for reference transactions is no subscription; its payments have own events.",
    "CATALOG.PRODUCT.": "Products change no price; the events of plans do.",
    "CHECKOUT.CHECKOUT.": "A buyer who approved has not paid; the capture has its own event.",
    "CHECKOUT.ORDER.": "The capture of an order has its own event; the facts keep the order's amounts.",
    "CHECKOUT.PAYMENT-APPROVAL.": "A payment that the buyer approved and PayPal took back was never captured.",
    "CUSTOMER.MERCHANT-INTEGRATION.": "The capabilities of connected accounts concern platforms.",
    "IDENTITY.AUTHORIZATION-CONSENT.": "A person withdrew the consent to sign in with PayPal, which this program does not use.",
    "INVOICING.INVOICE.CREATED": _UNPAID_INVOICE,
    "INVOICING.INVOICE.SCHEDULED": _UNPAID_INVOICE,
    "INVOICING.INVOICE.UPDATED": _UNPAID_INVOICE,
    "PAYMENT.AUTHORIZATION.": "An authorization is no payment until it is captured.",
    "PAYMENT.ORDER.": "An order of the old API is no payment until it is captured.",
    "PAYMENT.PAYOUTS-ITEM.": _PAYOUT,
    "PAYMENT.PAYOUTSBATCH.": _PAYOUT,
    "PAYMENT.REFERENCED-PAYOUT-ITEM.": "Payouts to connected accounts concern platforms.",
    "PAYMENTS.PAYMENT.": "A payment of the old API is announced; its sale has its own event.",
    "RISK.DISPUTE.": "PayPal's old duplicate of CUSTOMER.DISPUTE.CREATED.",
    "VAULT.": "A saved payment method moves no money.",
}
UNKNOWN = "no handler for this type of event"


def ignored_reason(type: str) -> str:
    """Return why an event of a type without a handler changes nothing."""
    family = next((name for name in KEPT_TYPES if name.endswith(".") and type.startswith(name)), type)
    return f"kept: {KEPT_TYPES[family]}" if family in KEPT_TYPES else UNKNOWN
