"""Hypothesis strategy for text that tries to inject another line, header, link or address."""

from hypothesis import strategies as st

INJECTION = "=?utf-8?q?Zoe=0D=0ABcc=3A_evil=40example=2Eorg?="
_PIECE = st.sampled_from(
    [
        "\r\n",
        "\r",
        "\n",
        "\0",
        "\x85",
        "\u2028",
        "Bcc: evil@example.org",
        INJECTION,
        "=?",
        "?=",
        '"',
        "\\",
        ",",
        "<",
        ">",
        "@",
        ".",
        "www.evil.example",
        "http://",
        "\u202e",
        "\u200b",
        "é",
        "日本",
        "🙂",
        " ",
        "x" * 90,
        "--=_abc",
        "mailto:",
    ]
)
HOSTILE_TEXT = st.lists(st.one_of(_PIECE, st.text(max_size=12)), max_size=8).map("".join)
