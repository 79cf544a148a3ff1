"""Pretend customers. Every address is under example.com, which belongs to nobody (RFC 2606)."""

import hashlib
from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True, slots=True)
class SimulatedCustomer:
    """A PayPal account that subscribes. `email` and `city` may be "": PayPal does not always tell them."""

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
        """PayPal's id of the account: 13 characters, the same for the same address or name."""
        alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
        return "".join(alphabet[byte % 32] for byte in self._digest()[:13])

    @property
    def custom_id(self) -> str:
        """What the vendor calls the customer, given to PayPal when the subscription is made."""
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

# PayPal knows an account without telling its address: nobody can be mailed.
SILENT = SimulatedCustomer("Sam", "Quiet", "", "US")
# Names are typed by strangers. This one tries to become mail headers and markup.
HOSTILE = SimulatedCustomer(
    "Eve\r\nBcc: everyone@example.com", '<b>"Mallory"</b> =?utf-8?q?=0AX:_1?=', "eve@example.com", "US"
)


def crowd(count: int, rng: Random) -> list[SimulatedCustomer]:
    """So many people, each with an address and an account of their own."""
    order = rng.sample(PEOPLE, len(PEOPLE))
    return [_numbered(order[number % len(order)], number // len(order)) for number in range(count)]


def _numbered(person: SimulatedCustomer, number: int) -> SimulatedCustomer:
    if number == 0:
        return person
    name, _, domain = person.email.partition("@")
    return replace(person, email=f"{name}.{number + 1}@{domain}")
