"""Plays cases to the kernel and writes down what it does.  ask.py CASES ANSWERS

A case is a recording of the kind `behaviour`, `packets` or `cli` (README of goldens/) without its answers; an answer
is the same with them, and with the time of each event.
"""
import json
import os
import sys
import time

import stage

# Seconds until a packet counts as not forwarded, and until nothing more is answered.
FORWARDED_WITHIN, ANSWERED_WITHIN = 0.03, 0.02


def way(frame):
    protocol, source, destination, _ = stage.ends(frame)
    if source[1] is None:
        return 'proto %d %s > %s' % (protocol, source[0], destination[0])
    return '%s > %s' % (stage.text(source), stage.text(destination))


def answered(frame):
    protocol, _, _, rest = stage.ends(frame)
    if protocol in (stage.ICMP, stage.ICMPV6):
        return 'icmp%s type %d code %d' % ('v6' if protocol == stage.ICMPV6 else '', rest[0], rest[1])
    return 'proto %d flags %s' % (protocol, rest[13] if protocol == stage.TCP else None)


def made(event):
    ends = stage.end(event['src']), stage.end(event['dst'])
    if 'chunk' in event:
        return stage.sctp(*ends, event['chunk'])
    return stage.tcp(*ends, event['flags']) if 'flags' in event else stage.udp(*ends)


class Case:
    def __init__(self, case):
        self.stage = stage.Stage(case.get('sysctl') or {}, case.get('marks') or [], case.get('mtu_rs_link', 1500))
        for line in case.get('setup') or []:
            done = self.stage.ipvsadm(line)
            if done.returncode:
                raise RuntimeError('%s: %s' % (line, done.stderr))

    def play(self, event):
        # A case that is asked again, with events left out, still has its old answers.
        for answer in ('rs', 'out', 'back', 'rc', 'rows', 'text', 'stdout', 'stderr', 'error'):
            event.pop(answer, None)
        self.octets(event) if 'in' in event else getattr(self, event['op'])(event)

    def octets(self, event):
        """A packet of `packets`: all that comes out, on both sides."""
        sides = {'client': self.stage.clients_port, 'rs': self.stage.servers_port}
        for port in sides.values():
            port.drain()
        packet = bytes.fromhex(event['in']['hex'])
        source = stage.server_mac(stage.source(packet)) if event['in']['side'] == 'rs' else None
        try:
            sides[event['in']['side']].give(packet, source)
        except OSError as error:
            event['error'] = error.strerror
            return
        event['out'] = [
            dict(side=side, dmac=frame[:6].hex(), smac=frame[6:12].hex(), hex=frame[14:].hex())
            for side, port in sides.items() for frame in port.drain(ANSWERED_WITHIN)
        ]

    def end(self, case):
        """What `packets` ends with: connections, and counters once the estimator has seen all."""
        case['lnc'] = sorted(self.stage.ipvsadm('-Lnc').stdout.splitlines()[2:])
        time.sleep(2.3)
        case['stats'] = self.stage.ipvsadm('-Ln --stats --exact').stdout

    def from_client(self, event):
        clients, servers = self.stage.clients_port, self.stage.servers_port
        clients.drain()
        servers.drain()
        clients.give(made(event))
        frame = servers.take(FORWARDED_WITHIN)
        if frame:
            event['rs'], event['out'] = stage.server_of(frame), way(frame)
        else:
            event['rs'], event['back'] = None, [answered(frame) for frame in clients.drain(ANSWERED_WITHIN)]

    tcp = udp = sctp = from_client

    def reply(self, event):
        clients = self.stage.clients_port
        clients.drain()
        source = stage.server_mac(stage.end(event['src'])[0])
        self.stage.servers_port.give(made(event), source)
        frame = clients.take(FORWARDED_WITHIN)
        event['out'] = way(frame) if frame else None

    def ipvsadm(self, event):
        event['rc'] = self.stage.ipvsadm(event['args']).returncode

    def run(self, event):
        done = self.stage.ipvsadm(event['args'])
        event['rc'], event['stdout'], event['stderr'] = done.returncode, done.stdout, done.stderr

    def sysctl(self, event):
        self.stage.sysctl(event['name'], event['value'])

    def sleep(self, event):
        time.sleep(event['s'])

    def lnc(self, event):
        event['rows'] = sorted(self.stage.ipvsadm('-Lnc').stdout.splitlines()[2:])

    def ln(self, event):
        event['text'] = self.stage.ipvsadm('-Ln').stdout.splitlines()[3:]

    def show(self, event):
        event['text'] = self.stage.ipvsadm(event['args']).stdout.splitlines()


def main(cases, answers):
    os.makedirs(answers, exist_ok=True)
    for name in sorted(os.listdir(cases)):
        with open(os.path.join(cases, name)) as file:
            case = json.load(file)
        try:
            asked = Case(case)
            start = time.monotonic()
            for event in case['events']:
                event['t'] = round(time.monotonic() - start, 3)
                asked.play(event)
            if case['category'] == 'packets':
                asked.end(case)
            asked.stage.close()
        except RuntimeError as error:
            case['error'] = str(error)
        with open(os.path.join(answers, name), 'w') as file:
            json.dump(case, file)
        print(name, flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
