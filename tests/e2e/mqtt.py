"""As much of MQTT 5 as the tests need; standard library only."""
import socket
import ssl
import struct


def varint(n):
    out = b""
    while True:
        n, digit = divmod(n, 128)
        out += bytes([digit | (128 if n else 0)])
        if not n:
            return out


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack(">H", len(s)) + s


class Mqtt:
    def __init__(self, port, tls=None, host="127.0.0.1", name="localhost"):
        self.socket = socket.create_connection((host, port), timeout=10)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=name)
        self.buffer = b""
        self.present = 0
        self.packet = 0

    def send(self, first, body):
        self.socket.sendall(bytes([first]) + varint(len(body)) + body)

    def receive(self, timeout=10):
        """(first byte, body); None when the broker closed."""
        self.socket.settimeout(timeout)
        while True:
            if len(self.buffer) >= 2:
                size, shift, at = 0, 0, 1
                while at < len(self.buffer):
                    size |= (self.buffer[at] & 127) << shift
                    shift, at = shift + 7, at + 1
                    if self.buffer[at - 1] < 128:
                        if len(self.buffer) >= at + size:
                            packet = self.buffer[0], self.buffer[at:at + size]
                            self.buffer = self.buffer[at + size:]
                            return packet
                        break
            try:
                more = self.socket.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not more:
                return None
            self.buffer += more

    def connect(self, client, user=None, password=None, method=None, data=None, clean=True, expiry=None, will=None, will_delay=0, asks=False):
        """The reason code of CONNACK; another packet, or None when the broker closed."""
        properties = b"" if expiry is None else b"\x11" + struct.pack(">I", expiry)
        if method:
            properties += b"\x15" + text(method) + b"\x16" + text(data)
        if asks:
            properties += b"\x26" + text("aio-persistence") + text("true")
        flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0) | (4 if will else 0)
        body = text("MQTT") + bytes([5, flags, 0, 60]) + varint(len(properties)) + properties + text(client)
        if will:
            delay = b"\x18" + struct.pack(">I", will_delay)
            body += varint(len(delay)) + delay + text(will[0]) + text(will[1])
        for field in (user, password):
            if field is not None:
                body += text(field)
        self.send(0x10, body)
        answer = self.receive()
        if answer is None or answer[0] != 0x20:
            return answer
        self.present = answer[1][0] & 1
        return answer[1][1]

    def subscribe(self, *filters):
        self.send(0x82, b"\x00\x01\x00" + b"".join(text(f) + b"\x01" for f in filters))
        return list(self.receive()[1][3:])

    def publish(self, topic, payload=b"x", packet=None, retain=False, expiry=None, asks=False):
        """Sends at QoS 1; the answer is left to receive()."""
        self.packet = packet or self.packet % 60000 + 1
        properties = b"" if expiry is None else b"\x02" + struct.pack(">I", expiry)
        if asks:
            properties += b"\x26" + text("aio-persistence") + text("true")
        self.send(0x33 if retain else 0x32, text(topic) + struct.pack(">H", self.packet) + varint(len(properties)) + properties + (payload.encode() if isinstance(payload, str) else payload))

    def put(self, topic, payload="x", **words):
        """publish() and its PUBACK's reason."""
        self.publish(topic, payload, **words)
        answer = self.receive()
        assert answer is not None and answer[0] == 0x40, answer
        return answer[1][2] if len(answer[1]) > 2 else 0

    def messages(self, count, timeout=10):
        """So many messages as (topic, payload, expiry), acknowledged."""
        out = []
        while len(out) < count:
            packet = self.receive(timeout)
            assert packet is not None, f"closed after {out}"
            if packet[0] >> 4 != 3:
                continue
            size = struct.unpack(">H", packet[1][:2])[0]
            topic, at = packet[1][2:2 + size].decode(), 2 + size
            if packet[0] & 6:
                packet_id = packet[1][at:at + 2]
                at += 2
                self.send(0x40, packet_id)
            length = packet[1][at]
            properties, at = packet[1][at + 1:at + 1 + length], at + 1 + length
            expiry = struct.unpack(">I", properties[1:5])[0] if properties[:1] == b"\x02" else None
            out.append((topic, packet[1][at:].decode(), expiry))
        return out

    def silent(self, seconds=0.5):
        """True when nothing comes."""
        try:
            return self.receive(seconds) is None
        except TimeoutError:
            return True

    def auth(self, reason, method, data):
        properties = b"\x15" + text(method) + b"\x16" + text(data)
        self.send(0xF0, bytes([reason]) + varint(len(properties)) + properties)

    def drop(self):
        """The network fails."""
        self.socket.close()
