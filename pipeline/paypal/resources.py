"""Parse PayPal's resources, old and new formats, into facts and personal data with the same keys.

Subscription: subscription, status, status_at, status_changed_at, at, plan, terms, quantity, start_at, next_billing_at,
last_payment_at, failed_count, outstanding, failed_at, failed_amount, failed_reason, retry_at, shipping, cycles_left, final_at.
Sale and capture: sale, subscription, agreement, order, amount, fee, tax, shipping, received, rate, held, state, created_at,
at, reason.
Refund: refund, sale, amount, refunded_total, returned_fee, received, state, created_at, at.
Invoice, order: the ids that `references` finds, and `invoice` (number, transactions, refunds) or `order`, status, money.
Dispute: dispute, sale, sales, status, stage, reason, amount, due_at, outcome, created_at, at.
Plan: plan, name, terms, at.
Action: subscription or sale, action, at, plan, quantity.
Account at PayPal: account, limitation, reason, status, at.
Money is [minor units, currency]. Times are ISO 8601 in UTC. `unread` lists the fields that could not be read.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pipeline.paypal.account_resources import read_account
from pipeline.paypal.action_resources import read_action
from pipeline.paypal.dispute_resources import read_dispute
from pipeline.paypal.field_reader import Facts, Person
from pipeline.paypal.order_resources import read_invoice, read_order
from pipeline.paypal.payment_resources import read_capture, read_capture_refund, read_refund, read_sale
from pipeline.paypal.subscription_resources import read_plan, read_subscription

# By prefix of the event type; a longer prefix comes before a shorter one.
READERS: dict[str, Callable[[str, dict[str, Any], datetime | None], tuple[Facts, Person]]] = {
    "ACTION.": read_action,
    "BILLING.SUBSCRIPTION.": read_subscription,
    "BILLING.PLAN.": read_plan,
    "PAYMENT.SALE.REFUNDED": read_refund,
    "PAYMENT.SALE.REVERSED": read_refund,
    "PAYMENT.SALE.": read_sale,
    "PAYMENT.CAPTURE.REFUNDED": read_capture_refund,
    "PAYMENT.CAPTURE.REVERSED": read_capture_refund,
    "PAYMENT.CAPTURE.": read_capture,
    "PAYMENT.REFUND.": read_capture_refund,
    "CUSTOMER.DISPUTE.": read_dispute,
    "INVOICING.INVOICE.": read_invoice,
    "CHECKOUT.ORDER.": read_order,
    "READ.SUBSCRIPTION": read_subscription,
    "READ.PLAN": read_plan,
    "READ.SALE": read_sale,
    "READ.REFUND": read_refund,
    "READ.CAPTURE_REFUND": read_capture_refund,
    "READ.CAPTURE": read_capture,
    "READ.DISPUTE": read_dispute,
    "CUSTOMER.ACCOUNT-LIMITATION.": read_account,
    "MERCHANT.": read_account,
}
