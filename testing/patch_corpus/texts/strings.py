# -*- coding: utf-8 -*-
"""Texts of the invoice page, by language."""

TEXTS = {
    "de": {
        "title": "Rechnungsübersicht",
        "greeting": "Schön, dass du da bist",
        "total": "Summe (€)",
        "empty": "Noch keine Einträge …",
    },
    "fr": {
        "title": "Aperçu des factures",
        "greeting": "Ravi de vous voir",
        "total": "Montant (€)",
        "empty": "Rien à afficher …",
    },
    "ja": {
        "title": "請求書の一覧",
        "greeting": "ようこそ",
        "total": "合計(円)",
        "empty": "まだありません",
    },
    "en": {
        "title": "Invoice overview",
        "greeting": "Good to see you 👋",
        "total": "Total ($)",
        "empty": "Nothing here yet …",
    },
}


def text(language, key):
    """The text, or the English one – never nothing."""
    table = TEXTS.get(language, TEXTS["en"])
    return table.get(key) or TEXTS["en"][key]


def languages():
    return sorted(TEXTS)
