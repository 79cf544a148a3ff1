"""The vendor's plan file: what PayPal gets, and which mistakes are named."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.operations.plan_file import read_plan_file

PLAN = '[[product]]\nname = "App"\n[[product.plan]]\nname = "Monthly"\ncurrency = "EUR"\nprice = "10.00"\nevery = "1 month"\n'


def read(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "plans.toml"
    file.write_text(text)
    (product,) = read_plan_file(file)
    return product.plans[0].body


def test_plan_has_one_regular_cycle_without_end(tmp_path: Path) -> None:
    assert read(tmp_path, PLAN) == {
        "name": "Monthly",
        "status": "ACTIVE",
        "billing_cycles": [
            {
                "frequency": {"interval_unit": "MONTH", "interval_count": 1},
                "tenure_type": "REGULAR",
                "sequence": 1,
                "total_cycles": 0,
                "pricing_scheme": {"fixed_price": {"value": "10.00", "currency_code": "EUR"}},
            }
        ],
        "payment_preferences": {"auto_bill_outstanding": True, "payment_failure_threshold": 2},
        "quantity_supported": False,
    }


def test_trials_come_first_and_a_free_one_has_no_price(tmp_path: Path) -> None:
    trials = 'trial = [{price = "0", every = "2 weeks", cycles = 1}, {price = "5", every = "1 month", cycles = 3}]\n'
    cycles = read(tmp_path, PLAN + trials)["billing_cycles"]
    assert isinstance(cycles, list)
    assert [(each["tenure_type"], each["sequence"], each["total_cycles"]) for each in cycles] == [
        ("TRIAL", 1, 1), ("TRIAL", 2, 3), ("REGULAR", 3, 0),
    ]  # fmt: skip
    assert [each.get("pricing_scheme", {}).get("fixed_price", {}).get("value") for each in cycles] == [
        None, "5.00", "10.00",
    ]  # fmt: skip


def test_amounts_of_currencies_without_minor_unit_have_no_decimals(tmp_path: Path) -> None:
    body = read(tmp_path, PLAN.replace("EUR", "JPY").replace("10.00", "980") + 'setup_fee = "100"\n')
    assert body["payment_preferences"] == {
        "auto_bill_outstanding": True,
        "payment_failure_threshold": 2,
        "setup_fee": {"value": "100", "currency_code": "JPY"},
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('every = "1 month"', 'every = "monthly"'), "Monthly: every must be like '1 month'"),
        (('every = "1 month"', 'every = "13 months"'), "Monthly: every must be like '1 month'"),
        (('price = "10.00"', 'price = "10,00"'), "Monthly: price must be an amount in EUR"),
        (('price = "10.00"', 'price = "-1"'), "Monthly: price must not be negative"),
        (('price = "10.00"', 'prise = "10.00"'), "Monthly: unknown prise"),
        (('name = "Monthly"', 'name = ""'), "a plan: name must be a text"),
        (('every = "1 month"', 'every = "1 month"\ntax = "19"'), "Monthly: tax_included must be true"),
        (
            ('every = "1 month"', 'every = "1 month"\ntax = "x"\ntax_included = true'),
            "Monthly: tax must be a percentage",
        ),
        (('every = "1 month"', 'every = "1 month"\ncycles = -1'), "Monthly: cycles must be a number"),
        (("[[product.plan]]", "[[product.plans]]"), "App: unknown plans"),
        (('name = "App"', 'name = "App'), "is not TOML"),
    ],
)
def test_mistake_is_named_with_its_plan(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(PLAN.replace(*change))
    with pytest.raises(UsageError) as error:
        read_plan_file(file)
    assert str(file) in str(error.value)
    assert named in str(error.value)


def test_repeated_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(PLAN + PLAN.partition("\n")[2].partition("\n")[2])
    with pytest.raises(UsageError, match="the plan Monthly occurs twice"):
        read_plan_file(file)
