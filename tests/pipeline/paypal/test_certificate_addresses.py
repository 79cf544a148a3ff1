"""URLs of PayPal's certificates: only the exact form is accepted, and other URLs are never requested."""

from pathlib import Path

import pytest

from pipeline.clock import MovableClock
from pipeline.paypal.certificate_rules import require_certificate_url
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.errors import SignatureError
from tests.support.certificate_authority import NOW, paypal

PATH = "/v1/notifications/certs/CERT-360caa42"


@pytest.mark.parametrize("host", ["api", "api-m", "api.sandbox", "api-m.sandbox"])
@pytest.mark.parametrize("port", ["", ":443"])
def test_paypals_urls_are_accepted(host: str, port: str) -> None:
    require_certificate_url(f"https://{host}.paypal.com{port}/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270")


REFUSED_URLS = [
    f"http://api.paypal.com{PATH}",
    f"HTTPS://api.paypal.com{PATH}",
    f"file://api.paypal.com{PATH}",
    "file:///etc/passwd",
    f"//api.paypal.com{PATH}",
    f"https:/api.paypal.com{PATH}",
    f"https:\\\\api.paypal.com{PATH}",
    f" https://api.paypal.com{PATH}",
    f"https://api.paypal.com{PATH} ",
    f"https://api.paypal.com{PATH}\n",
    f"https://api.paypal.com\t{PATH}",
    f"https://api.paypal.com\r\nHost: evil.example.com{PATH}",
    f"https://evil.example.com{PATH}",
    f"https://api.paypal.com.evil.example.com{PATH}",
    f"https://evil-api.paypal.com{PATH}",
    f"https://apixpaypal.com{PATH}",
    f"https://api-paypal.com{PATH}",
    f"https://www.paypal.com{PATH}",
    f"https://paypal.com{PATH}",
    f"https://sandbox.paypal.com{PATH}",
    f"https://api.sandbox.sandbox.paypal.com{PATH}",
    f"https://api.paypal.com.{PATH}",
    f"https://API.PAYPAL.COM{PATH}",
    f"https://api.p\u0430ypal.com{PATH}",  # a Cyrillic letter
    f"https://api.paypal\u3002com{PATH}",  # an ideographic full stop
    f"https://api.xn--pypal-4ve.com{PATH}",
    f"https://\uff41pi.paypal.com{PATH}",
    f"https://api.paypal.com@evil.example.com{PATH}",
    f"https://evil.example.com#@api.paypal.com{PATH}",
    f"https://evil.example.com\\@api.paypal.com{PATH}",
    f"https://evil.example.com?@api.paypal.com{PATH}",
    f"https://user:password@api.paypal.com{PATH}",
    f"https://@api.paypal.com{PATH}",
    f"https://127.0.0.1{PATH}",
    f"https://[::1]{PATH}",
    f"https://169.254.169.254{PATH}",
    f"https://2130706433{PATH}",
    f"https://api.paypal.com:80{PATH}",
    f"https://api.paypal.com:8443{PATH}",
    f"https://api.paypal.com:{PATH}",
    f"https://api.paypal.com:0443{PATH}",
    f"https://api.paypal.com:443:443{PATH}",
    "https://api.paypal.com",
    "https://api.paypal.com/",
    "https://api.paypal.com/v1/notifications/certs/",
    "https://api.paypal.com/v1/notifications/certs/CERT-1/CERT-2",
    "https://api.paypal.com/v1/notifications/certs//CERT-1",
    "https://api.paypal.com//v1/notifications/certs/CERT-1",
    "https://api.paypal.com/v1/notifications/certs/CERT-1/",
    "https://api.paypal.com/v1/notifications/certs/..",
    "https://api.paypal.com/v1/notifications/certs/../../x",
    "https://api.paypal.com/v1/notifications/certs/./CERT-1",
    "https://api.paypal.com/v1/notifications/certs/%2e%2e",
    "https://api.paypal.com/v1/notifications/certs/%2E%2E%2Fredirect",
    "https://api.paypal.com/v1/notifications/certs/CERT%2D1",
    "https://api.paypal.com/v1%2fnotifications/certs/CERT-1",
    "https://api.paypal.com/V1/notifications/certs/CERT-1",
    "https://api.paypal.com/v1/notifications/certs/CERT_1",
    "https://api.paypal.com/v1/notifications/certs/CERT-1;x",
    "https://api.paypal.com/v1/notifications/certs/CERT-1?next=https://evil.example.com",
    "https://api.paypal.com/v1/notifications/certs/CERT-1#x",
    "https://api.paypal.com/v1/notifications/certs/CERT-1\\..\\x",
    "https://api.paypal.com/v1/notifications/certs/CERT-1\x00",
    "https://api.paypal.com/v1/notifications/certs/CERT-\u0661",  # an Arabic digit
    "https://api.paypal.com/redirect?to=/v1/notifications/certs/CERT-1",
    "https://api.paypal.com/v1/oauth2/token",
    "",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_other_url_is_refused_before_any_request(url: str, tmp_path: Path) -> None:
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return paypal().pem

    keys = CertificateStore(folder=tmp_path / "new", anchors=None, clock=MovableClock(NOW), fetch=fetch)
    with pytest.raises(SignatureError) as error:
        await keys.get(url)
    assert (error.value.check, fetched) == ("certificate address", [])
    with pytest.raises(SignatureError):
        keys.add(url, paypal().pem)
    assert (keys.known(url), (tmp_path / "new").exists()) == (None, False)


@pytest.mark.parametrize("host", ["api", "api-m", "api.sandbox", "api-m.sandbox"])
def test_sandbox_url_is_refused_with_live_api(host: str) -> None:
    url = f"https://{host}.paypal.com{PATH}"
    if "sandbox" not in host:
        require_certificate_url(url, live=True)
        return
    with pytest.raises(SignatureError, match="PayPal's sandbox"):
        require_certificate_url(url, live=True)
