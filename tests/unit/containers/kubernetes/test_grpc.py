# SPDX-License-Identifier: Apache-2.0
"""The small gRPC client: HPACK by the examples of the RFC, protocol buffers, and misbehaving sockets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.containers.kubernetes import hpack, proto
from ringfence.containers.kubernetes.cri import Cri, CriError
from ringfence.containers.kubernetes.grpc import Channel, GrpcError
from tests.support.waiting import quickest


@pytest.mark.parametrize(
    ("coded", "text"),
    [  # RFC 7541, C.4 and C.6
        ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"), ("a8eb10649cbf", "no-cache"),
        ("25a849e95ba97d7f", "custom-key"), ("25a849e95bb8e8b4bf", "custom-value"), ("6402", "302"),
        ("aec3771a4b", "private"),
        ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
    ],
)  # fmt: skip
def test_huffman_codes_are_those_of_the_rfc(coded: str, text: str) -> None:
    """By its examples."""
    assert hpack.unhuffman(bytes.fromhex(coded)) == text.encode()


def test_a_literal_is_read_with_and_without_huffman() -> None:
    """C.2.1, a literal name and value; a status of the static table; and the encoder's own output."""
    plain = bytes.fromhex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")
    assert list(hpack.decode(plain)) == [("custom-key", "custom-header")]
    assert list(hpack.decode(b"\x88")) == [(":status", "200")]
    fields = [("grpc-status", "5"), ("x" * 300, "y" * 200)]
    assert list(hpack.decode(hpack.encode(fields))) == fields
    assert hpack._integer(bytes.fromhex("1f9a0a"), 0, 5) == (1337, 3)  # C.1.2


@pytest.mark.parametrize(
    ("coded", "text"),
    [("", b""), ("ff", None), ("f1e3c2e5f23a6ba0ab90f4ffff", None), ("00", None), ("1f", b"a"), ("18", None)],
)
def test_the_padding_of_huffman_codes_is_checked(coded: str, text: bytes | None) -> None:
    """Fewer than eight ones (section 5.2): `a` is 00011, and `0` is 00000. EOS is no text."""
    if text is not None:
        assert hpack.unhuffman(bytes.fromhex(coded)) == text
        return
    with pytest.raises(hpack.HpackError):
        hpack.unhuffman(bytes.fromhex(coded))


def test_the_end_of_string_is_no_symbol() -> None:
    """Thirty ones are EOS; a decoder must refuse it."""
    with pytest.raises(hpack.HpackError, match="no such code"):
        hpack.unhuffman(b"\xff" * 4)


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"\x8e", [(":status", "500")]),  # index 14 of appendix A
        (b"\x81\xbd", []),  # 1 and 61 are in the static table
        (b"\x20\x3f\x00", []),  # sizes of the table: 0, and 31
        (b"\x48\x03200", [(":status", "200")]),  # a literal with an indexed name
        (b"\x0e\x03500", [(":status", "500")]),  # without indexing
        (b"\x1e\x03500", [(":status", "500")]),  # never indexed
        (b"\x41\x01x", []),  # :authority
        (b"\x00\x01a\x00", [("a", "")]),
        (b"\x10\x01a\x01b", [("a", "b")]),
    ],
)
def test_each_form_of_a_field_is_decoded(block: bytes, fields: list[tuple[str, str]]) -> None:
    """Section 6."""
    assert list(hpack.decode(block)) == fields


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xbe", b"\xff", b"\xff\x80\x80\x80\x80\x80\x01", b"\x40", b"\x00\x01", b"\x00\x01a\x02b"],
)
def test_a_block_that_is_cut_off_or_names_no_field_is_refused(block: bytes) -> None:
    """Index 0, and those beyond the static table; numbers and texts without an end."""
    with pytest.raises(hpack.HpackError):
        list(hpack.decode(block))


def test_a_long_text_is_refused() -> None:
    """More than 16 KiB is no header of gRPC."""
    longest = "x" * (1 << 14)
    assert list(hpack.decode(hpack.encode([("a", longest)]))) == [("a", longest)]
    with pytest.raises(hpack.HpackError):
        list(hpack.decode(hpack.encode([("a", longest + "x")])))


@pytest.mark.parametrize(
    ("text", "head"), [("x" * 126, "7e"), ("x" * 127, "7f00"), ("x" * 254, "7f7f"), ("x" * 255, "7f8001")]
)
def test_the_length_of_a_text_is_an_integer_of_seven_bits(text: str, head: str) -> None:
    """Section 5.1."""
    block = hpack.encode([("a", text)])
    assert block[3 : 3 + len(head) // 2].hex() == head
    assert list(hpack.decode(block)) == [("a", text)]


@given(st.binary(max_size=200))
def test_fuzz_any_block_is_decoded_or_refused(data: bytes) -> None:
    """It yields fields or raises HpackError."""
    try:
        list(hpack.decode(data))
    except hpack.HpackError:
        pass


@given(st.binary(max_size=200))
def test_fuzz_any_message_is_decoded_or_refused(data: bytes) -> None:
    """It returns fields or raises ProtoError."""
    for table in (proto.CONTAINERS, proto.CONTAINER_STATUS, proto.SANDBOX_STATUS, proto.VERSION):
        try:
            assert set(proto.decode(data, table)) <= {field.name for field in table.values()}
        except proto.ProtoError:
            pass


def test_messages_nest_repeat_and_map() -> None:
    """As those of the CRI; unknown numbers are skipped, for any wire type."""
    metadata = proto.text_field(3, proto.text_field(1, "nginx"))
    label = proto.text_field(8, proto.text_field(1, "app") + proto.text_field(2, "web"))
    unknown = b"\x30\x96\x01" + b"\x39" + b"12345678" + b"\x45" + b"1234"
    container = proto.text_field(1, "c1") + metadata + label + unknown
    data = proto.text_field(1, container) + proto.text_field(1, proto.text_field(1, "c2"))
    assert proto.decode(data, proto.CONTAINERS) == {
        "containers": [{"id": "c1", "metadata": {"name": "nginx"}, "labels": {"app": "web"}}, {"id": "c2"}]
    }


def test_a_list_without_an_end_is_refused() -> None:
    """Two million containers of no bytes are an answer of 4 MiB, and were 150 MiB of memory."""
    assert len(proto.decode(b"\x0a\x00" * 1024, proto.CONTAINERS)["containers"]) == 1024
    endless = b"\x0a\x00" * (1 << 21)
    tracemalloc.start()
    try:
        with pytest.raises(proto.ProtoError, match="more than 1024 containers"):
            proto.decode(endless, proto.CONTAINERS)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("known", [True, False])
def test_a_message_of_too_many_fields_is_refused(known: bool) -> None:
    """Also within another one, and where nobody reads them: no time limit covers the decoder."""
    inner = (b"\x0a\x00" if known else b"\xf8\x07\x00") * 1000
    outer = proto.text_field(1, inner)
    assert proto.decode(outer * 60, proto.CONTAINERS)["containers"][59] == ({"id": ""} if known else {})
    with pytest.raises(proto.ProtoError, match="more than 65536 fields"):
        proto.decode(outer * 66, proto.CONTAINERS)


def test_the_image_of_a_container_is_that_of_the_cri() -> None:
    """api.proto: ImageSpec has the image as 1, and as the user wrote it as 18."""
    image = proto.text_field(1, "sha256:1") + proto.text_field(18, "shop/web:1")
    status = proto.text_field(1, proto.text_field(8, image) + proto.text_field(9, "ref"))
    assert proto.decode(status, proto.CONTAINER_STATUS) == {
        "status": {"image": {"image": "sha256:1", "user_specified_image": "shop/web:1"}, "image_ref": "ref"}
    }


@contextmanager
def listener(directory: Path, behave: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A socket that calls `behave` for each connection."""
    path = directory / "cri.sock"
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(0.05)

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        behave(connection)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            done.set()
            thread.join(5)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hang(connection: socket.socket) -> None:
    """Waits until the client gives up."""
    while connection.recv(65536):
        pass


def drip(connection: socket.socket) -> None:
    """Sends a byte of a settings frame now and then."""
    for byte in frame(4, 0, 0, b"\0" * 600):
        connection.send(bytes((byte,)))
        time.sleep(0.02)


def chatter(connection: socket.socket) -> None:
    """Sends pings forever."""
    while True:
        connection.sendall(frame(6, 1, 0, b"12345678") * 50)


def flood(connection: socket.socket) -> None:
    """Sends data without an end."""
    while True:
        connection.sendall(frame(0, 0, 1, b"x" * 16384))


def answering(payload: bytes) -> Callable[[socket.socket], None]:
    """Returns a behaviour that sends the payload and waits for the end."""

    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(payload)
        hang(connection)

    return behave


BAD = {
    "hang": hang, "drip": drip, "chatter": chatter, "flood": flood, "hang up": lambda connection: None,
    "http/1": answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "long frame": answering(b"\xff" * 64),
    "goaway": answering(frame(7, 0, 0, b"\0" * 8)), "reset": answering(frame(3, 0, 1, b"\0" * 4)),
    "bad header": answering(frame(1, 5, 1, b"\xff\xff\xff\xff\xff")),
    "no message": answering(frame(1, 5, 1, hpack.encode([("grpc-status", "0")]))),
    "no status": answering(frame(0, 1, 1, b"\0\0\0\0\0")),
    "padding": answering(frame(0, 9, 1, b"\xff")),
    "odd status": answering(frame(1, 5, 1, hpack.encode([("grpc-status", "\xb2")]))),
    "long status": answering(frame(1, 5, 1, hpack.encode([("grpc-status", "1" * 5000)]))),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_socket_costs_at_most_the_timeout(tmp_path: Path, name: str) -> None:
    """It raises GrpcError, and the next call uses a new connection."""
    with listener(tmp_path, BAD[name]) as path:
        channel = Channel(path, timeout=0.3)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(GrpcError):
                channel.call("/x.Y/Z", b"")
            assert time.monotonic() - began < 20
        channel.close()


Frame = tuple[int, int, int, bytes]
_TRAILERS = hpack.encode([("grpc-status", "0")])


class Server:
    """Answers calls as RFC 9113 and gRPC's PROTOCOL-HTTP2 say, and keeps the client's frames."""

    def __init__(self, *answers: Callable[[int], bytes]) -> None:
        self.answers, self.frames = list(answers), list[Frame]()
        self.preface = b""

    def __call__(self, connection: socket.socket) -> None:
        """Serves one connection."""
        stream = connection.makefile("rb")
        self.preface = stream.read(24)
        while head := stream.read(9):
            kind, flags, number = struct.unpack(">BBI", head[3:])
            self.frames.append((kind, flags, number, stream.read(int.from_bytes(head[:3], "big"))))
            if kind == 0 and flags & 1 and self.answers:  # END_STREAM
                # In a thread, as a server reads while it sends: the client answers each frame.
                threading.Thread(target=send, args=(connection, self.answers.pop(0)(number))).start()


def send(connection: socket.socket, data: bytes) -> None:
    """Sends it all, unless the client has had enough."""
    with contextlib.suppress(OSError):
        connection.sendall(data)


def message(data: bytes) -> bytes:
    """A message of gRPC: not compressed, its length, and the data."""
    return b"\0" + struct.pack(">I", len(data)) + data


def plain(stream: int) -> bytes:
    """The usual answer: headers, data, trailers."""
    return (
        frame(1, 4, stream, b"\x88")
        + frame(0, 0, stream, message(b"answer"))
        + frame(1, 5, stream, _TRAILERS)
    )


def test_a_call_is_sent_as_the_rfc_says(tmp_path: Path) -> None:
    """Odd streams, in order, on one connection; no table, no push, and windows for the largest message."""
    server = Server(plain, plain)
    with listener(tmp_path, server) as path:
        channel = Channel(path, timeout=60)
        assert [channel.call("/x.Y/Z", b"question") for _ in range(2)] == [b"answer", b"answer"]
        channel.close()
    assert server.preface == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings, window, headers, data = server.frames[:4]
    values = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, (4 << 20) + (16 << 10))
    assert settings == (4, 0, 0, values)
    assert window == (8, 0, 0, struct.pack(">I", 4 << 20))
    assert headers[:3] == (1, 4, 1)  # END_HEADERS
    assert dict(hpack.decode(headers[3])) == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/x.Y/Z",
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": "ringfence",
    }
    assert data == (0, 1, 1, message(b"question"))
    assert [one[2] for one in server.frames if one[0] == 1] == [1, 3]


def test_every_form_of_an_answer_is_read(tmp_path: Path) -> None:
    """Padding, priority, continuation, frames of other streams; settings and pings are acknowledged."""
    half = len(_TRAILERS) // 2

    def answer(stream: int) -> bytes:
        whole = message(b"x" * 300)
        return (
            frame(4, 0, 0, b"")
            + frame(4, 1, 0, b"")
            + frame(6, 0, 0, b"12345678")
            + frame(6, 1, 0, b"87654321")
            + frame(1, 4 | 8 | 32, stream, b"\2" + bytes(5) + b"\x88" + b"\0\0")
            + frame(0, 0, stream + 2, b"other")
            + frame(0, 8, stream, b"\3" + whole[:100] + b"\0\0\0")
            + frame(0, 0, stream, whole[100:])
            + frame(1, 1, stream, _TRAILERS[:half])
            + frame(9, 4, stream, _TRAILERS[half:])
        )

    server = Server(answer)
    with listener(tmp_path, server) as path:
        channel = Channel(path, timeout=60)
        assert channel.call("/x.Y/Z", b"") == b"x" * 300
        channel.close()
    acknowledged = [one for one in server.frames if one[0] in (4, 6) and one[1] == 1]
    assert acknowledged == [(4, 1, 0, b""), (6, 1, 0, b"12345678")]
    given = [struct.unpack(">I", one[3])[0] for one in server.frames if one[0] == 8]
    assert given == [4 << 20, 5, 104, 205]


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ([("grpc-status", "5"), ("grpc-message", "no%20such")], 5, "no such"),
        ([(":status", "503")], -1, "HTTP 503"),
        ([("grpc-status", "1000")], -1, "HTTP ?"),
        ([("grpc-status", "999")], 999, "HTTP ?"),
    ],
)
def test_a_refusal_has_the_servers_status(
    tmp_path: Path, fields: list[tuple[str, str]], status: int, words: str
) -> None:
    """5 is NOT_FOUND; without a valid status, the call itself failed."""
    server = Server(*[lambda stream: frame(1, 5, stream, hpack.encode(fields))] * 2)
    with listener(tmp_path, server) as path:
        channel = Channel(path, timeout=60)
        with pytest.raises(GrpcError) as caught:
            channel.call("/x.Y/Z", b"")
        assert caught.value.status == status
        assert str(caught.value) == f"{path}: {words}"
        channel.close()


@pytest.mark.parametrize(
    ("length", "words"), [(4 << 20, ""), ((4 << 20) + 1, "too long"), (64 << 20, "too long")]
)
def test_an_answer_that_is_too_long_is_known_at_once(tmp_path: Path, length: int, words: str) -> None:
    """Also from a server that sends no more than the window it was given: the end would never come."""

    def answer(stream: int) -> bytes:
        data = message(bytes(length))
        settings = next(one for one in server.frames if one[0] == 4)[3]
        window = dict(struct.iter_unpack(">HI", settings))[4]
        sent = b"".join(frame(0, 0, stream, data[at : min(at + 16384, window)])
                        for at in range(0, min(len(data), window), 16384))  # fmt: skip
        return sent + (frame(1, 5, stream, _TRAILERS) if len(data) <= window else b"")

    server = Server(answer)
    with listener(tmp_path, server) as path:
        channel = Channel(path, timeout=60)
        if words:
            with pytest.raises(GrpcError, match=words):
                channel.call("/x.Y/Z", b"")
        else:
            assert channel.call("/x.Y/Z", b"") == bytes(length)
        channel.close()


def test_headers_without_an_end_are_refused(tmp_path: Path) -> None:
    """Each block is small; together they would be as large as all frames of a call."""
    block = hpack.encode([("x" * 100, "y" * 1000)])
    server = Server(lambda stream: frame(1, 4, stream, block) * 15 + frame(1, 5, stream, _TRAILERS))
    with listener(tmp_path, server) as path:
        channel = Channel(path, timeout=60)
        with pytest.raises(GrpcError, match="too long"):
            channel.call("/x.Y/Z", b"")
        channel.close()


@pytest.mark.parametrize("data", [b"", b"\0\0\0\0", b"\1\0\0\0\0", b"\0\0\0\0\1", b"\0\0\0\0\0x"])
def test_a_message_that_is_not_whole_is_refused(tmp_path: Path, data: bytes) -> None:
    """Compressed, cut, or with something behind it."""
    server = Server(lambda stream: frame(0, 0, stream, data) + frame(1, 5, stream, _TRAILERS))
    with listener(tmp_path, server) as path:
        channel = Channel(path, timeout=60)
        with pytest.raises(GrpcError, match="incomplete message"):
            channel.call("/x.Y/Z", b"")
        channel.close()


def test_a_hanging_socket_is_not_queried_for_a_while(tmp_path: Path) -> None:
    """After three consecutive failures, so that containers do not queue up without names."""
    with listener(tmp_path, hang) as path:
        cri = Cri(path, timeout=0.5)
        for _ in range(3):
            with pytest.raises(CriError):
                cri.find("a" * 64)

        def refused() -> float:
            began = time.monotonic()
            with pytest.raises(CriError, match="repeatedly"):
                cri.find("a" * 64)
            return time.monotonic() - began

        assert quickest(refused, 0.5) < 0.5


def test_a_missing_socket_is_an_error(tmp_path: Path) -> None:
    """There is no socket."""
    with pytest.raises(CriError):
        Cri(tmp_path / "none").find("a" * 64)


@pytest.mark.parametrize("value", ["", "x", "x" * 127, "x" * 128, "x" * 20_000])
def test_a_text_of_any_length_is_read_back(value: str) -> None:
    """Its length needs one byte or several."""
    coded = proto.text_field(3, value)
    assert [(number, found) for number, found in proto._fields(coded)] == [(3, value.encode())]


def test_a_container_and_a_sandbox_are_found_by_their_id() -> None:
    """The first by ListContainers, with its image; the other as the pod itself."""

    class Answers(Cri):
        """A runtime with one pod of one container."""

        def __init__(self) -> None:
            """No socket."""

        def _ask(self, call: str, message: bytes) -> bytes:
            assert call == "ListContainers"
            return b""

        def _sandbox(self, identifier: str) -> Any:
            return SimpleNamespace(pod="p", namespace="n", uid="u", labels={})

        def _name(self) -> str:
            return "containerd"

        def _image(self, identifier: str, container: object) -> tuple[str, str]:
            return "shop/web:1", "sha256:1"

    listed = {"containers": [{"id": "c1", "pod_sandbox_id": "s1", "metadata": {"name": "web"}}]}
    with mock.patch.object(proto, "decode", return_value=listed):
        found = Answers()._find("c1")
        sandbox = Answers()._find("s1")
    assert found is not None
    assert sandbox is not None
    assert (found.name, found.image, found.pod, found.namespace) == ("web", "shop/web:1", "p", "n")
    assert (sandbox.name, sandbox.image, sandbox.pod) == ("POD", "", "p")
