"""Simulated customers. Every address is under example.com, a domain reserved for examples (RFC 2606)."""

import hashlib
from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True, slots=True)
class SimulatedCustomer:
    """The PayPal account of a subscriber. `email` and `city` may be "", because PayPal does not always send them."""

    given_name: str
    surname: str
    email: str
    country: str
    city: str = ""
    street: str = ""
    postal_code: str = ""
    company: str = ""

    @property
    def payer_id(self) -> str:
        """PayPal's id of the account: 13 characters, computed from address and name."""
        alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
        return "".join(alphabet[byte % 32] for byte in self._digest()[:13])

    @property
    def custom_id(self) -> str:
        """The vendor's customer id, sent to PayPal when the subscription is created."""
        return "customer-" + self._digest().hex()[-10:]

    def _digest(self) -> bytes:
        return hashlib.sha256(f"{self.email}|{self.given_name}|{self.surname}".encode()).digest()


PEOPLE = (
    SimulatedCustomer("Ada", "Whitfield", "ada.whitfield@example.com", "GB", "Leeds", "4 Mill Lane", "LS1 4AP"),
    SimulatedCustomer(
        "Zoë", "Müller-Lüdenscheidt", "zoe.mueller@example.com", "DE", "Görlitz", "Bäckerstraße 9", "02826"
    ),
    SimulatedCustomer("محمد", "الحسيني", "m.alhusseini@example.com", "JO", "عمّان", "شارع الرينبو 12", "11183"),
    SimulatedCustomer("太郎", "山田", "taro.yamada@example.com", "JP", "京都市", "中京区 1-2-3", "604-8001"),
    SimulatedCustomer(
        "Nora", "Kestrel", "accounts@kestrel.example.com", "IE", "Cork", "2 Quay", "T12 X8P3", "Kestrel & Sons Ltd"
    ),
    SimulatedCustomer(
        "Siobhán", "O'Brien", "siobhan.o'brien+billing@example.com", "IE", "Galway", "7 Shop Street", "H91 XY12"
    ),
    SimulatedCustomer("Łukasz", "Żółkiewski", "lukasz@example.com", "PL", "Łódź", "ul. Piotrkowska 11", "90-001"),
    SimulatedCustomer("רות", "בן־דוד", "ruth.bendavid@example.com", "IL", "חיפה", "רחוב הגפן 3", "3300001"),
    SimulatedCustomer(
        "José María", "Núñez de la Peña", "jm.nunez@example.com", "ES", "A Coruña", "Rúa Nova 5", "15003"
    ),
    SimulatedCustomer("Ngọc", "Nguyễn", "ngoc.nguyen@example.com", "VN"),
    SimulatedCustomer("Þórdís", "Ágústsdóttir", "thordis@example.com", "IS", "Reykjavík", "Laugavegur 20", "101"),
    SimulatedCustomer("Oluwaseun", "Adébáyọ̀", "seun.adebayo@example.com", "NG", "Ìbàdàn", "14 Ring Road", "200001"),
    SimulatedCustomer("Anne-Laure", "d'Hœst", "al.dhoest@example.com", "FR", "Nîmes", "3 rue de l'Étoile", "30000"),
    SimulatedCustomer("Екатерина", "Дмитриева", "e.dmitrieva@example.com", "BG", "Пловдив", "ул. Рила 8", "4000"),
    SimulatedCustomer("X", "Æ", "x@example.com", "DK"),
    SimulatedCustomer(
        "Priya", "Ramanathan", "it@brightwater.example.com", "IN", "Chennai", "9 Beach Rd", "600001", "Bright Water LLP"
    ),
)

# PayPal sends no e-mail address for this account, so no mail can be sent.
SILENT = SimulatedCustomer("Sam", "Quiet", "", "US")
# Customers choose their names. This one tries to inject mail headers and markup.
HOSTILE = SimulatedCustomer(
    "Eve\r\nBcc: everyone@example.com", '<b>"Mallory"</b> =?utf-8?q?=0AX:_1?=', "eve@example.com", "US"
)


def crowd(count: int, rng: Random) -> list[SimulatedCustomer]:
    """Return `count` customers with distinct addresses and accounts, in random order."""
    order = rng.sample(PEOPLE, len(PEOPLE))
    return [_numbered(order[number % len(order)], number // len(order)) for number in range(count)]


def _numbered(person: SimulatedCustomer, number: int) -> SimulatedCustomer:
    if number == 0:
        return person
    name, _, domain = person.email.partition("@")
    return replace(person, email=f"{name}.{number + 1}@{domain}")
