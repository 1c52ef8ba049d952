"""URLs a connection can be made of; a refusal quotes none of them. What a link does is in `tests/contract`."""

import pytest

from engine.store.link import make_connection


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://store.internal", ("store.internal", 6379, 0)),
        ("redis://me:p%2Fss@[::1]:7000/3", ("::1", 7000, 3)),
        ("rediss://:secret@10.0.0.1:65535/?ssl_cert_reqs=none", ("10.0.0.1", 65535, 0)),
        ("redis://10.0.0.1:1?db=2", ("10.0.0.1", 1, 2)),
    ],
)
def test_url_of_a_server_says_where_it_is(url: str, place: tuple[str, int, int]) -> None:
    connection = make_connection(url)

    assert (connection.host, connection.port, connection.db) == place  # type: ignore[attr-defined]


def test_url_of_a_socket_may_hold_percent_signs() -> None:
    assert make_connection("unix:///run/a%20store.sock").path == "/run/a store.sock"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:s3cret@127.0.0.1:abc", "host:port"),
        ("redis://:s3cret@127.0.0.1:6379:1", "host:port"),
        ("rediss://:s3cret@127.0.0.1:bad", "host:port"),
        ("redis://:s3cret@127.0.0.1:0", "host:port"),
        ("redis://:s3cret@127.0.0.1:65536", "host:port"),
        ("redis://:s3cret@a:1,b:2", "host:port"),
        ("redis://:s3cret@", "host:port"),
        ("redis://:s3cret@[::1", "not a URL"),
        ("redis://:s3cret/x@127.0.0.1:1", "%2F"),
        ("redis://:s3cret?x@127.0.0.1:1", "%3F"),
        ("redis://:s3cret#x@127.0.0.1:1", "%23"),
        ("redis://:s3cret@127.0.0.1:1/abc", "number of a database"),
        ("redis://:s3cret@127.0.0.1:1/0/1", "number of a database"),
        ("redis://:s3cret@127.0.0.1:1?db=x", "option"),
        ("redis://127.0.0.1:1?pasword=s3cret", "option"),
        ("unix://run/s3cret.sock", "three slashes"),
        ("unix://", "three slashes"),
    ],
)
def test_other_urls_are_refused_and_nothing_of_them_is_quoted(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        make_connection(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
