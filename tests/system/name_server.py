"""A name server on the far side, UDP and TCP: answers from a zone file of one line per RRset, and keeps every question.

python name_server.py ADDRESS ZONE LOG
"""

from __future__ import annotations

import socketserver
import sys
import threading
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

SOA = "home.example. 60 IN SOA ns.home.example. host.home.example. 1 2 3 4 60"


class Zone:
    """Lines are `NAME TYPE VALUE|VALUE`."""

    def __init__(self, path: Path, log: Path) -> None:
        self._records: dict[tuple[str, str], list[str]] = {}
        self._log = log.open("ab", buffering=0)
        for line in path.read_text().splitlines():
            name, kind, values = line.split(" ", 2)
            self._records[name, kind] = values.split("|")

    def answer(self, data: bytes, *, limit: int) -> bytes:
        query = dns.message.from_wire(data)
        (question,) = query.question
        self._log.write(question.to_text().encode() + b"\n")
        made = dns.message.make_response(query)
        made.flags |= dns.flags.RA
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        while True:
            found = kind if (name, kind) in self._records else "CNAME"
            values = self._records.get((name, found))
            if values is None:
                break
            made.answer.append(dns.rrset.from_text_list(name, 60, "IN", found, values))
            if found != "CNAME":
                break
            name = values[0]
        if not made.answer:
            known = any(one == name for one, _ in self._records)
            made.set_rcode(dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN)
            soa, ttl, *rest = SOA.split(" ")
            made.authority.append(dns.rrset.from_text(soa, int(ttl), rest[0], rest[1], " ".join(rest[2:])))
        wire = made.to_wire(max_size=65535, want_shuffle=False)
        if len(wire) > limit:
            made.answer.clear()
            made.flags |= dns.flags.TC
            wire = made.to_wire(max_size=65535)
        return wire


def serve(address: str, zone: Zone) -> None:
    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            sock.sendto(zone.answer(data, limit=1232), self.client_address)

    class Stream(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while length := self.rfile.read(2):
                wire = zone.answer(self.rfile.read(int.from_bytes(length, "big")), limit=65535)
                self.wfile.write(len(wire).to_bytes(2, "big") + wire)

    streams = socketserver.ThreadingTCPServer((address, 53), Stream)
    threading.Thread(target=streams.serve_forever, daemon=True).start()
    socketserver.UDPServer((address, 53), Datagram).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], Zone(Path(sys.argv[2]), Path(sys.argv[3])))
