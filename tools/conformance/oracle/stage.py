"""The stage on which the kernel is asked: a client, a director and real servers in network namespaces.

    client: cd ---veth--- dc :director: dr ---veth--- rd :real servers

The same as that of the recordings (README of goldens/). Clients and servers have no addresses: every
packet is made and read here, so the director's is the only IP stack.
"""
import array
import ctypes
import fcntl
import ipaddress
import os
import select
import socket
import struct
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
CLIENT_GATEWAY = bytes.fromhex('0200000000fe')
CLIENT_SIDE = bytes.fromhex('020000000001')
SERVERS_GATEWAY = bytes.fromhex('0200000001fe')
SERVERS_SIDE = bytes.fromhex('020000000101')
SERVERS = range(2, 14)
FLAGS = dict(F=1, S=2, R=4, P=8, A=16, U=32)
TCP, UDP, SCTP, ICMP, ICMPV6 = 6, 17, 132, 1, 58


def run(*words, stdin=None):
    """Runs a command and gives back how it went."""
    return subprocess.run(words, input=stdin, capture_output=True, text=True)


def must(*words, stdin=None):
    done = run(*words, stdin=stdin)
    if done.returncode:
        raise RuntimeError('%s: %s%s' % (' '.join(words), done.stdout, done.stderr))
    return done.stdout


def enter(namespace):
    if LIBC.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), 'setns')


HOME = os.open('/proc/self/ns/net', os.O_RDONLY)


class Namespace:
    """A network namespace that lives as long as this object is open; `with` enters it."""

    def __init__(self):
        if LIBC.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), 'unshare')
        self.fd = os.open('/proc/self/ns/net', os.O_RDONLY)
        enter(HOME)

    def __enter__(self):
        enter(self.fd)

    def __exit__(self, *_):
        enter(HOME)

    def take(self, device):
        """Moves a device of the current namespace here: by the number of a process that lives here."""
        holder = subprocess.Popen(['sleep', '9'], preexec_fn=lambda: enter(self.fd))
        try:
            must('ip', 'link', 'set', device, 'netns', str(holder.pid))
        finally:
            holder.kill()
            holder.wait()

    def close(self):
        os.close(self.fd)


class Port:
    """The far end of a link: gives frames to the director and takes those that it sends."""

    def __init__(self, namespace, device, own, peer):
        with namespace:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.socket.bind((device, 3))
        self.socket.setblocking(False)
        self.own, self.peer = own, peer

    def give(self, packet, source=None):
        kind = b'\x86\xdd' if packet[0] >> 4 == 6 else b'\x08\x00'
        self.socket.send(self.peer + (source or self.own) + kind + packet)

    def take(self, wait):
        """The next IP frame of the director that is no neighbour discovery; None if none comes in `wait` s."""
        end = time.monotonic() + wait
        while True:
            try:
                frame, address = self.socket.recvfrom(65536)
            except BlockingIOError:
                left = end - time.monotonic()
                if left <= 0:
                    return None
                select.select([self.socket], [], [], left)
                continue
            if address[2] == socket.PACKET_OUTGOING or frame[12:14] not in (b'\x08\x00', b'\x86\xdd'):
                continue
            if frame[12:14] == b'\x86\xdd' and (frame[20] == 0 or frame[20] == ICMPV6 and 130 <= frame[54] <= 143):
                continue
            return frame

    def drain(self, wait=0.0):
        """All that there is."""
        frames = []
        while (frame := self.take(wait)) is not None:
            frames.append(frame)
        return frames


def write(path, value):
    with open('/proc/sys/net/' + path, 'w') as file:
        file.write(str(value))


def finish_checksums(namespace, device):
    """Turns transmit checksum offload off: frames would leave a veth with unfinished ones."""
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        value = array.array('B', struct.pack('II', 0x17, 0))  # ETHTOOL_STXCSUM
        fcntl.ioctl(sock, 0x8946, struct.pack('16sP', device.encode(), value.buffer_info()[0]))


class Stage:
    def __init__(self, sysctl, marks, servers_mtu):
        self.client, self.director, self.servers = Namespace(), Namespace(), Namespace()
        for namespace, own, theirs, mac in (
            (self.client, 'cd', 'dc', '02:00:00:00:00:fe'),
            (self.servers, 'rd', 'dr', '02:00:00:00:01:fe'),
        ):
            with namespace:
                must('ip', 'link', 'add', own, 'type', 'veth', 'peer', 'name', theirs)
                self.director.take(theirs)
                write('ipv6/conf/all/disable_ipv6', 1)
                write('ipv6/conf/default/disable_ipv6', 1)
                must('ip', 'link', 'set', own, 'address', mac, 'up')
        with self.director:
            for device in ('all', 'default', 'dc', 'dr'):
                write('ipv4/conf/%s/rp_filter' % device, 0)
                write('ipv4/conf/%s/send_redirects' % device, 0)
                write('ipv6/conf/%s/accept_dad' % device, 0)
                write('ipv6/conf/%s/accept_ra' % device, 0)
            for name in ('ipv4/ip_forward', 'ipv6/conf/all/forwarding'):
                write(name, 1)
            for name in ('ipv4/icmp_ratelimit', 'ipv6/icmp/ratelimit'):
                write(name, 0)
            must('ip', '-batch', '-', stdin='''
                link set lo up
                link set dc address 02:00:00:00:00:01 up
                link set dr address 02:00:00:00:01:01 up
                addr add 10.0.0.1/24 dev dc
                addr add 10.1.0.1/24 dev dr
                route add default via 10.0.0.254 dev dc
                neigh add 10.0.0.254 lladdr 02:00:00:00:00:fe dev dc nud permanent
                route add local 198.18.0.0/15 dev lo
                route add local 10.0.0.96/27 dev lo
            ''' + '\n'.join('neigh add 10.1.0.%d lladdr 02:00:00:00:01:%02x dev dr nud permanent' % (n, n) for n in SERVERS))
            must('ip', '-6', '-batch', '-', stdin='''
                addr add fd00::1/64 dev dc nodad
                addr add fd00:1::1/64 dev dr nodad
                route add default via fd00::fe dev dc
                neigh add fd00::fe lladdr 02:00:00:00:00:fe dev dc nud permanent
                route add local fd00:100::/64 dev lo
                route add local 2001:db8:5::/64 dev lo
            ''' + '\n'.join('neigh add fd00:1::%x lladdr 02:00:00:00:01:%02x dev dr nud permanent' % (n, n) for n in SERVERS))
            for name, value in sysctl.items():
                write('ipv4/vs/' + name, value)
            must('ip', 'link', 'set', 'dr', 'mtu', str(servers_mtu))
            for family in ('ip', 'ip6'):
                rules = ['%s meta mark set %d' % (mark['match'], mark['mark'])
                         for mark in marks if mark.get('family', 'ip') == family]
                if rules:
                    must('nft', '-f', '-', stdin='table %s m { chain p { type filter hook prerouting priority -150;\n%s\n}\n}\n'
                         % (family, '\n'.join(rules)))
        for namespace, device in ((self.client, 'cd'), (self.director, 'dc'), (self.director, 'dr'), (self.servers, 'rd')):
            finish_checksums(namespace, device)
        self.clients_port = Port(self.client, 'cd', CLIENT_GATEWAY, CLIENT_SIDE)
        self.servers_port = Port(self.servers, 'rd', SERVERS_GATEWAY, SERVERS_SIDE)

    def ipvsadm(self, line):
        with self.director:
            return run('ipvsadm', *line.split())

    def sysctl(self, name, value):
        with self.director:
            write('ipv4/vs/' + name, value)

    def close(self):
        for port in (self.clients_port, self.servers_port):
            port.socket.close()
        for namespace in (self.client, self.director, self.servers):
            namespace.close()


def checksum(octets):
    if len(octets) & 1:
        octets += b'\0'
    total = sum(struct.unpack('!%dH' % (len(octets) // 2), octets))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packed(address):
    return ipaddress.ip_address(address).packed


def segment_checksum(source, destination, protocol, segment):
    ends = packed(source) + packed(destination)
    tail = struct.pack('!BBH', 0, protocol, len(segment)) if len(ends) == 8 else struct.pack('!IHBB', len(segment), 0, 0, protocol)
    return checksum(ends + tail + segment)


def ip(source, destination, protocol, payload):
    ends = packed(source) + packed(destination)
    if len(ends) == 32:
        return struct.pack('!IHBB', 6 << 28, len(payload), protocol, 64) + ends + payload
    head = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(payload), 0x1234, 0x4000, 64, protocol, 0) + ends
    return head[:10] + struct.pack('!H', checksum(head)) + head[12:] + payload


def tcp(source, destination, letters):
    flags = sum(FLAGS[letter] for letter in letters)
    segment = struct.pack('!HHIIBBHHH', source[1], destination[1], 1000, 0, 5 << 4, flags, 64240, 0, 0)
    sum_ = segment_checksum(source[0], destination[0], TCP, segment)
    return ip(source[0], destination[0], TCP, segment[:16] + struct.pack('!H', sum_) + segment[18:])


def udp(source, destination):
    segment = struct.pack('!HHHH', source[1], destination[1], 9, 0) + b'x'
    sum_ = segment_checksum(source[0], destination[0], UDP, segment) or 0xffff
    return ip(source[0], destination[0], UDP, segment[:6] + struct.pack('!H', sum_) + segment[8:])


CASTAGNOLI = []
for index in range(256):
    for _ in range(8):
        index = (index >> 1) ^ (0x82f63b78 if index & 1 else 0)
    CASTAGNOLI.append(index)


def crc32c(octets):
    value = 0xffffffff
    for octet in octets:
        value = (value >> 8) ^ CASTAGNOLI[(value ^ octet) & 255]
    return value ^ 0xffffffff


# RFC 9260 section 3.2: number and length of the fixed part of each chunk.
CHUNKS = dict(DATA=(0, 13), INIT=(1, 16), INIT_ACK=(2, 16), SACK=(3, 12), HEARTBEAT=(4, 0), HEARTBEAT_ACK=(5, 0),
              ABORT=(6, 0), SHUTDOWN=(7, 4), SHUTDOWN_ACK=(8, 0), ERROR=(9, 0), COOKIE_ECHO=(10, 4), COOKIE_ACK=(11, 0),
              SHUTDOWN_COMPLETE=(14, 0))


def sctp(source, destination, chunk):
    number, fixed = CHUNKS[chunk]
    body = struct.pack('!BBH', number, 3 if chunk == 'DATA' else 0, 4 + fixed) + bytes(fixed)
    body += bytes(-len(body) % 4)
    head = struct.pack('!HHI', source[1], destination[1], 0x01020304)
    return ip(source[0], destination[0], SCTP, head + struct.pack('<I', crc32c(head + bytes(4) + body)) + body)


def ends(frame):
    """-> (protocol, source, destination, layer 4) of an IP frame; ports None where there are none."""
    packet = frame[14:]
    if packet[0] >> 4 == 4:
        source, destination, protocol, rest = packet[12:16], packet[16:20], packet[9], packet[(packet[0] & 15) * 4:]
    else:
        source, destination, protocol, rest = packet[8:24], packet[24:40], packet[6], packet[40:]
    ports = struct.unpack('!HH', rest[:4]) if protocol in (TCP, UDP, SCTP) else (None, None)
    return protocol, (str(ipaddress.ip_address(source)), ports[0]), (str(ipaddress.ip_address(destination)), ports[1]), rest


def server_of(frame):
    """The real server that a frame is addressed to, by its Ethernet address."""
    return ('fd00:1::%x' if frame[12:14] == b'\x86\xdd' else '10.1.0.%d') % frame[5]


def server_mac(address):
    """The Ethernet address of a real server; that of the first, as of a router, for somebody else."""
    last = packed(address)[-1]
    own = address.startswith(('10.1.0.', 'fd00:1::'))
    return bytes([2, 0, 0, 0, 1, last if own else SERVERS[0]])


def source(packet):
    """Who sent an IP packet."""
    return str(ipaddress.ip_address(packet[8:24] if packet[0] >> 4 == 6 else packet[12:16]))


def text(end):
    address, port = end
    return '%s:%d' % ('[%s]' % address if ':' in address else address, port)


def end(words):
    address, port = words.rsplit(':', 1)
    return address.strip('[]'), int(port)
