"""Steps 4 and 5 of 6: an upstream's answer, checked and made anew; nothing of its bytes goes to an executor.

Gets the message that answers our query; hands on an `Entry` with only what belongs to the question: the chain of
aliases from it, the records of its type at the end, or the SOA that says there are none. Encrypted ClientHello keys are
taken out of HTTPS and SVCB records: the name of a TLS connection must stay readable. Speed does not matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA
from dns.rdtypes.svcbbase import IPv4HintParam, IPv6HintParam, MandatoryParam, Param, ParamKey, SVCBBase

from enforcer.errors import ProtocolError
from enforcer.flow import Address, Side
from enforcer.geo.address import normalise
from enforcer.resolver.cache import Entry, View
from enforcer.resolver.wire import Question

# Aliases that one answer may lead over; resolvers give up between 8 and 17.
MAX_CHAIN = 12
# Records of one answer: a megabyte of A records is no use to anybody.
MAX_RECORDS = 512
# Seconds. Nothing is older than a day, and what is not there may come soon (RFC 2308 section 5 allows 3 hours).
MAX_TTL, MAX_NEGATIVE_TTL = 86_400, 900
# Seconds that a failure is remembered (RFC 9520 asks for at least one).
FAILURE_TTL = 2
_HINTS = (ParamKey.IPV4HINT, ParamKey.IPV6HINT)
_WITH_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.HTTPS, dns.rdatatype.SVCB)

Keeps = Callable[[Address], bool]


@dataclass(slots=True)
class Filtered:
    """A message with only the addresses that were to be kept. `dropped`: the others."""

    wire: bytes
    records: int
    addresses: tuple[Address, ...]
    dropped: tuple[Address, ...]


class Unusable(ProtocolError):
    """An upstream's message that is no answer to what was asked; another one may do better."""

    def __init__(self, reason: str) -> None:
        super().__init__(Side.SERVER, reason)


def read_answer(question: Question, raw: bytes, source: str, special: Keeps, now: float) -> Entry:
    """The entry for `question` from `raw`, whose id and question were checked. Raises Unusable. `special`: addresses
    that not everybody may be told; `source`: which upstream it is from."""
    try:
        message = dns.message.from_wire(raw, ignore_trailing=False)
        rcode = message.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise Unusable(f"answered {dns.rcode.to_text(rcode)}")
        name = dns.name.from_wire(question.name, 0)[0]
        chain, end = _chain(message, name, question.qtype)
        records = None
        if question.qtype != dns.rdatatype.CNAME:
            qtype = dns.rdatatype.RdataType.make(question.qtype)
            records = message.get_rrset(message.answer, end, dns.rdataclass.IN, qtype)
        answer = [*chain, *([_clean(records)] if records else [])]
        if sum(map(len, answer)) > MAX_RECORDS:
            raise Unusable(f"more than {MAX_RECORDS} records")
        authority = [] if records or (chain and question.qtype == dns.rdatatype.CNAME) else _negative(message, end)
        if rcode == dns.rcode.NXDOMAIN and records:
            raise Unusable("a name that does not exist and has records")
        wire = _render(name, question.qtype, rcode, answer, authority)
    except dns.exception.DNSException as error:
        raise Unusable(f"malformed: {type(error).__name__}") from error
    addresses = tuple(dict.fromkeys(one for rrset in answer for one in _addresses(rrset)))
    full = View(wire, int(rcode), sum(map(len, answer)), addresses)
    ttls = [rrset.ttl for rrset in answer] + [min(rrset.ttl, MAX_NEGATIVE_TTL) for rrset in authority]
    negative = not records and not (chain and question.qtype == dns.rdatatype.CNAME)
    lifetime = min(ttls, default=0) if not negative or authority else 0
    names = tuple(str(rrset[0].target).lower().rstrip(".") for rrset in chain)
    return Entry(full, source, names, any(special(one) for one in addresses), now, now + lifetime)


def _chain(
    message: dns.message.Message, name: dns.name.Name, qtype: int
) -> tuple[list[dns.rrset.RRset], dns.name.Name]:
    """The aliases from `name` on, and the name they end at."""
    chain: list[dns.rrset.RRset] = []
    seen = {name}
    while (alias := message.get_rrset(message.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME)) is not None:
        chain.append(_capped(alias))
        name = alias[0].target
        if qtype == dns.rdatatype.CNAME:
            break
        if name in seen or len(chain) > MAX_CHAIN:
            raise Unusable("aliases without an end")
        seen.add(name)
    return chain, name


def _capped(rrset: dns.rrset.RRset, limit: int = MAX_TTL) -> dns.rrset.RRset:
    rrset.ttl = min(rrset.ttl, limit)
    return rrset


def _negative(message: dns.message.Message, end: dns.name.Name) -> list[dns.rrset.RRset]:
    """The SOA of a zone that holds `end`, with the time that its absence may be remembered (RFC 2308 section 5)."""
    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA and end.is_subdomain(rrset.name) and len(rrset) == 1:
            return [_capped(rrset, min(rrset[0].minimum, MAX_NEGATIVE_TTL))]
    return []


def _clean(rrset: dns.rrset.RRset) -> dns.rrset.RRset:
    """Without `ech` parameters, and without saying that they are mandatory (RFC 9460 section 8)."""
    _capped(rrset)
    if rrset.rdtype not in (dns.rdatatype.HTTPS, dns.rdatatype.SVCB):
        return rrset
    return _with(rrset, [_without(rdata, (ParamKey.ECH,)) for rdata in rrset if isinstance(rdata, SVCBBase)])


def _without(rdata: SVCBBase, keys: tuple[ParamKey, ...]) -> SVCBBase:
    if not any(key in rdata.params for key in keys):
        return rdata
    params = {key: value for key, value in rdata.params.items() if key not in keys}
    mandatory = params.get(ParamKey.MANDATORY)
    if isinstance(mandatory, MandatoryParam):
        del params[ParamKey.MANDATORY]
        if left := tuple(key for key in mandatory.keys if key not in keys):
            params[ParamKey.MANDATORY] = MandatoryParam(left)  # type: ignore[no-untyped-call]
    return _replaced(rdata, params)


def _replaced(rdata: SVCBBase, params: dict[ParamKey, Param]) -> SVCBBase:
    made: SVCBBase = rdata.replace(params=params)  # type: ignore[assignment]  # says Rdata
    return made


def _with(rrset: dns.rrset.RRset, rdatas: Sequence[dns.rdata.Rdata]) -> dns.rrset.RRset:
    made = dns.rrset.RRset(rrset.name, rrset.rdclass, rrset.rdtype)
    for rdata in rdatas:
        made.add(rdata, rrset.ttl)
    return made


def _addresses(rrset: dns.rrset.RRset) -> list[Address]:
    return [normalise(ip_address(text)) for rdata in rrset for text in _address_texts(rdata)]


def _address_texts(rdata: dns.rdata.Rdata) -> list[str]:
    if isinstance(rdata, A | AAAA):
        return [rdata.address]
    if isinstance(rdata, SVCBBase):
        return [text for key in _HINTS for text in _hint(rdata, key)]
    return []


def _hint(rdata: SVCBBase, key: ParamKey) -> tuple[str, ...]:
    param = rdata.params.get(key)
    return tuple(param.addresses) if isinstance(param, IPv4HintParam | IPv6HintParam) else ()


def _render(
    name: dns.name.Name, qtype: int, rcode: int, answer: list[dns.rrset.RRset], authority: list[dns.rrset.RRset]
) -> bytes:
    made = dns.message.QueryMessage(0)
    made.flags = dns.flags.QR | dns.flags.RD | dns.flags.RA
    made.set_rcode(dns.rcode.Rcode(rcode))
    made.find_rrset(made.question, name, dns.rdataclass.IN, dns.rdatatype.RdataType.make(qtype), create=True)
    made.answer, made.authority = answer, authority
    return made.to_wire(max_size=65535, want_shuffle=False)


def keep_addresses(wire: bytes, keeps: Keeps) -> Filtered:
    """The same message with only the addresses that `keeps` says true of. Records that lose all their addresses go;
    aliases stay, so that what is left hangs together."""
    message = dns.message.from_wire(wire)
    answer: list[dns.rrset.RRset] = []
    dropped: dict[Address, None] = {}
    for rrset in message.answer:
        if rrset.rdtype not in _WITH_ADDRESSES:
            answer.append(rrset)
            continue
        dropped.update(dict.fromkeys(one for one in _addresses(rrset) if not keeps(one)))
        kept = [left for rdata in rrset if (left := _keep(rdata, keeps)) is not None]
        if kept:
            answer.append(_with(rrset, kept))
    made = _render(
        message.question[0].name, message.question[0].rdtype, message.rcode(), answer, list(message.authority)
    )
    addresses = tuple(dict.fromkeys(one for rrset in answer for one in _addresses(rrset)))
    return Filtered(made, sum(map(len, answer)), addresses, tuple(dropped))


def _keep(rdata: dns.rdata.Rdata, keeps: Keeps) -> dns.rdata.Rdata | None:
    texts = _address_texts(rdata)
    left = [text for text in texts if keeps(normalise(ip_address(text)))]
    if len(left) == len(texts):
        return rdata
    if not isinstance(rdata, SVCBBase):
        return None
    for key, hint in ((ParamKey.IPV4HINT, IPv4HintParam), (ParamKey.IPV6HINT, IPv6HintParam)):
        chosen = tuple(text for text in _hint(rdata, key) if text in left)
        rdata = _replaced(rdata, {**rdata.params, key: hint(chosen)}) if chosen else _without(rdata, (key,))
    return rdata


def local_answer(question: Question, address: str | None, now: float) -> Entry:
    """`localhost` (RFC 6761 section 6.3), which is never asked for elsewhere."""
    name = dns.name.from_wire(question.name, 0)[0]
    answer = [dns.rrset.from_text(name, MAX_TTL, "IN", question.type_text, address)] if address else []
    found = (ip_address(address),) if address else ()
    view = View(_render(name, question.qtype, 0, answer, []), 0, len(answer), found)
    return Entry(view, "this host", (), special=False, stored=now, expires=now)
