"""Event types to which a webhook can subscribe, with their resource versions.

Source: https://developer.paypal.com/api/rest/webhooks/event-names/
"""

from pipeline.simulator.timeline import Json

_VERSION_2 = {
    "BILLING.PLAN": ("ACTIVATED", "CREATED", "DEACTIVATED", "PRICING-CHANGE.ACTIVATED", "UPDATED"),
    "BILLING.SUBSCRIPTION": (
        "ACTIVATED", "CANCELLED", "CREATED", "EXPIRED", "PAYMENT.FAILED", "RE-ACTIVATED", "SUSPENDED", "UPDATED",
    ),
    "CATALOG.PRODUCT": ("CREATED", "UPDATED"),
    "CHECKOUT.ORDER": ("APPROVED", "COMPLETED", "PROCESSED"),
    "INVOICING.INVOICE": ("CANCELLED", "CREATED", "PAID", "REFUNDED", "SCHEDULED", "UPDATED"),
    "PAYMENT.CAPTURE": ("COMPLETED", "DECLINED", "DENIED", "PENDING", "REFUNDED", "REVERSED"),
    "PAYMENT.REFUND": ("FAILED", "PENDING"),
}  # fmt: skip
_VERSION_1 = {
    "BILLING_AGREEMENTS.AGREEMENT": ("CANCELLED", "CREATED"),
    "CHECKOUT.PAYMENT-APPROVAL": ("REVERSED",),
    "CUSTOMER.ACCOUNT-LIMITATION": ("ADDED", "ESCALATED", "LIFTED", "UPDATED"),
    "CUSTOMER.DISPUTE": ("CREATED", "RESOLVED", "UPDATED"),
    "IDENTITY.AUTHORIZATION-CONSENT": ("REVOKED",),
    "MERCHANT.ONBOARDING": ("COMPLETED",),
    "MERCHANT.PARTNER-CONSENT": ("REVOKED",),
    "PAYMENT.AUTHORIZATION": ("CREATED", "VOIDED"),
    "PAYMENT.ORDER": ("CANCELLED", "CREATED"),
    "PAYMENT.PAYOUTS-ITEM": (
        "BLOCKED", "CANCELED", "DENIED", "FAILED", "HELD", "REFUNDED", "RETURNED", "SUCCEEDED", "UNCLAIMED",
    ),
    "PAYMENT.PAYOUTSBATCH": ("DENIED", "PROCESSING", "SUCCESS"),
    "PAYMENT.REFERENCED-PAYOUT-ITEM": ("COMPLETED", "FAILED"),
    "PAYMENT.SALE": ("COMPLETED", "DENIED", "PENDING", "REFUNDED", "REVERSED"),
    "PAYMENTS.PAYMENT": ("CREATED",),
    "RISK.DISPUTE": ("CREATED",),
    "VAULT.CREDIT-CARD": ("CREATED", "DELETED", "UPDATED"),
    "VAULT.PAYMENT-TOKEN": ("CREATED", "DELETED", "DELETION-INITIATED"),
}  # fmt: skip
ALL = "*"  # all types, also future ones

EVENT_TYPES: dict[str, Json] = {
    f"{group}.{name}": {
        "name": f"{group}.{name}",
        "description": f"{group}.{name}".replace(".", " ").replace("-", " ").capitalize(),
        "status": "ENABLED",
        "resource_versions": [version],
    }
    for version, groups in (("1.0", _VERSION_1), ("2.0", _VERSION_2))
    for group, names in groups.items()
    for name in names
}
