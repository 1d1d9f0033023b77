"""Presidio's pattern recognizers, run by themselves: a program for a virtual environment that has presidio-analyzer.

Reads texts as JSON from standard input; writes the findings, [text, start, end, entity, score], and the seconds of
processor that they took. No language model is loaded: recognizers are called directly, so that words around a value do
not raise its score. Nothing is looked up on a network.
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
import time

logging.disable(logging.CRITICAL)

import tldextract  # noqa: E402

# It would fetch the list of public suffixes.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR

from presidio_analyzer import PatternRecognizer, predefined_recognizers  # noqa: E402

# What it calls addresses, places and dates of any kind is not compared: there is no such detector.
NOT_COMPARED = {"DATE_TIME", "URL", "UUID", "DE_PLZ", "CA_POSTAL_CODE", "UK_POSTCODE"}


def recognizers():  # type: ignore[no-untyped-def]
    for name, kind in inspect.getmembers(predefined_recognizers, inspect.isclass):
        if issubclass(kind, PatternRecognizer) or name == "PhoneRecognizer":
            made = kind()
            if not NOT_COMPARED & set(made.supported_entities):
                yield made


def main() -> None:
    request = json.load(sys.stdin)
    made = list(recognizers())
    found = []
    begun = time.process_time()
    for index, text in enumerate(request["texts"]):
        for recognizer in made:
            for result in recognizer.analyze(text, recognizer.supported_entities, None) or []:
                found.append((index, result.start, result.end, result.entity_type, result.score))
    seconds = time.process_time() - begun
    json.dump({"found": found, "seconds": seconds, "recognizers": len(made)}, sys.stdout)


if __name__ == "__main__":
    main()
