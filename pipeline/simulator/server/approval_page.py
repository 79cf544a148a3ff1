"""The page of the simulated PayPal on which the buyer approves a subscription."""

from html import escape

from pipeline.money import Money, format_money
from pipeline.simulator.plans import Plan

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title} · simulated PayPal</title>
<style>
:root {{ --paper: #f2f5f9; --sheet: #fff; --ink: #1c2733; --soft: #55636f; --line: #d7dee6; --button: #0b4ea2; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #12171d; --sheet: #1b2229; --ink: #e5e9ed; --soft: #9caab7; --line: #303a45; --button: #2f6fc4; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
header {{ background: var(--sheet); border-bottom: 1px solid var(--line); padding: .9rem 1.5rem; font-weight: 650; }}
header span {{ color: var(--soft); font-weight: 400; }}
main {{ max-width: 30rem; margin: 2rem auto; padding: 1.5rem 1.75rem; background: var(--sheet);
  border: 1px solid var(--line); border-radius: 10px; }}
h1 {{ font-size: 1.35rem; line-height: 1.3; margin: 0 0 1rem; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.25rem; margin: 0 0 1.5rem; }}
dt {{ color: var(--soft); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
label {{ display: block; color: var(--soft); margin-bottom: .25rem; }}
input {{ width: 100%; font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 6px; padding: .5rem .7rem; margin-bottom: 1.25rem; }}
button {{ width: 100%; font: inherit; font-weight: 650; color: #fff; background: var(--button); border: 0;
  border-radius: 999px; padding: .75rem; cursor: pointer; }}
p {{ margin: 1rem 0 0; text-align: center; }}
a {{ color: inherit; }}
</style>
</head>
<body>
<header>Simulated PayPal <span>· no money moves</span></header>
<main>
{content}
</main>
</body>
</html>
"""


def approval_page(plan: Plan, buyer: str, cancel_url: str) -> str:
    """Return the page with plan and price, a field for the buyer's PayPal address, and a button that approves."""
    facts = {"Plan": plan.name, "Price": _price(plan)}
    lines = "\n".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    content = (
        f"<h1>Approve your subscription</h1>\n<dl>\n{lines}\n</dl>\n"
        "<form method='post'>\n<label for='email'>E-mail address of your PayPal account</label>\n"
        f"<input id='email' name='email' type='email' required value='{escape(buyer, quote=True)}'>\n"
        "<button>Agree and Subscribe</button>\n</form>\n"
        f"<p><a href='{escape(cancel_url, quote=True)}'>Cancel and return</a></p>"
    )
    return _PAGE.format(title="Approve your subscription", content=content)


def nothing_to_approve() -> str:
    """Return the page for an id that waits for no approval."""
    content = (
        "<h1>No subscription is waiting for approval</h1>\n"
        "<p>It was approved already, or the simulated PayPal was started again. Please send the order form again.</p>"
    )
    return _PAGE.format(title="Nothing to approve", content=content)


def _price(plan: Plan) -> str:
    every = f"every {plan.count} {plan.unit.lower()}s" if plan.count > 1 else f"every {plan.unit.lower()}"
    seats = f", {plan.quantity} seats" if plan.quantity > 1 else ""
    trial = f", after {plan.trial_days} free days" if plan.trial_days else ""
    total = Money(plan.price.amount * plan.quantity, plan.price.currency)
    return f"{format_money(total, 'en_US')} {every}{seats}{trial}"
