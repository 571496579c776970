"""Keeps every invoice of one customer."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)

MAX_INVOICES = 250
DEFAULT_CURRENCY = "EUR"


@dataclass
class Invoice:
    number: int
    total: float = 0.0
    lines: list = field(default_factory=list)

    def add(self, text, amount):
        if amount < 0:
            raise ValueError("an amount can't be negative - use a credit note")
        self.lines.append((text, amount))
        self.total += amount
        return self

    def is_empty(self):
        return not self.lines


class InvoiceStore:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.cache = {}

    def load(self, number):
        if number in self.cache:
            return self.cache[number]
        path = self.folder / f"{number}.json"
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            log.warning("no invoice %s in %s", number, self.folder)
            return None
        invoice = Invoice(data["number"], data["total"], data["lines"])
        self.cache[number] = invoice
        return invoice

    def save(self, invoice):
        if len(self.cache) >= MAX_INVOICES:
            self.cache.clear()
        path = self.folder / f"{invoice.number}.json"
        path.write_text(json.dumps(invoice.__dict__))
        self.cache[invoice.number] = invoice

    def all(self):
        for path in sorted(self.folder.glob("*.json")):
            yield self.load(int(path.stem))
