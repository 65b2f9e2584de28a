"""Words to make records of: names from many languages, trades, places."""

from __future__ import annotations


def _words(text: str) -> list[str]:
    return text.split()


FIRST_NAMES = _words(
    """
    Ines Pat Aiko Tomás Yusuf Marie Oleksandra Dana Søren Zoë Bjørn Chloé Nguyễn José Łukasz Fatima
    Priya Wei Hana Mateus Amara Kwame Ingrid Jürgen Siobhán Émilie Luca Giulia Nikos Eleni Arjun Mei
    Kenji Sofía Lars Freya Omar Leila Noah Emma Liam Olivia Ada Grace Linus Maya 美咲 健太 王芳 Дмитро
    Анна محمد ליאת
    """
)
LAST_NAMES = _words(
    """
    Okafor Lindqvist Tanaka Núñez Demir Lefèvre Koval Weiss Müller Østergaard O'Brien Nowak Kowalski
    Dvořák Papadopoulos Rossi Ferrari Silva Santos García Fernández Smith Jones Nguyễn Trần Kim Park
    Chen Wang Singh Sharma Haddad Mensah Diallo Ivanova Petrov Andersson Virtanen Schröder Groß
    D'Angelo 佐藤 鈴木 李 Шевченко الحسن כהן
    """
)
LAST_NAMES += ["van Dijk", "de la Cruz", "Mc Donald"]
COMPANY_HEADS = _words(
    """
    Harbour Northwind Blue Granite Alpine Meridian Copper Lantern Silver Juniper Redwood Atlas
    Beacon Cobalt Delta Ember Falcon Glacier Horizon Indigo Kestrel Lumen Maple Nova Orchid Pioneer
    Quartz Ridge Summit Tidal Umbra Vertex Willow Zenith Bären Étoile Niño Åker 東海 Київ
    """
)
COMPANY_TAILS = _words(
    """
    Tools Logistics Foods Robotics Textiles Energy Media Optics Papers Software Marine Timber Labs
    Motors Chemicals Ceramics Networks Health Print Garden
    """
)
COMPANY_FORMS = ["", "", " GmbH", " Ltd.", " Inc.", " S.A.", " & Co.", " AB", " K.K."]
INDUSTRIES = [
    "Manufacturing",
    "Logistics",
    "Food & Beverage",
    "Software",
    "Energy",
    "Health",
    "Retail",
    "Media",
    "Education",
]
PLACES = [
    ("Hamburg", None, "DE", "20457"),
    ("São Paulo", "SP", "BR", "01310-100"),
    ("Kraków", None, "PL", "31-042"),
    ("Lyon", None, "FR", "69002"),
    ("Austin", "TX", "US", "78701"),
    ("Portland", "OR", "US", "97205"),
    ("名古屋市", "愛知県", "JP", "460-0008"),
    ("Göteborg", None, "SE", "411 06"),
    ("Київ", None, "UA", "01001"),
    ("Toronto", "ON", "CA", "M5H 2N2"),
    ("Leeds", None, "GB", "LS1 4AP"),
    ("Zürich", "ZH", "CH", "8001"),
]
STREETS = [
    "Kai",
    "Main Street",
    "Rue de la Paix",
    "Lindenallee",
    "Market Square",
    "Calle Mayor",
    "Storgatan",
    "High Street",
]
TITLES = [
    "Buyer",
    "CEO",
    "CTO",
    "Head of Sales",
    "Engineer",
    "Office Manager",
    "Controller",
    "Directrice",
    "Leiter Einkauf",
]
DEPARTMENTS = ["Procurement", "Sales", "Finance", "IT", "Operations", "R&D", "Legal"]
LIFECYCLE = [
    "lead",
    "lead",
    "lead",
    "qualified",
    "qualified",
    "opportunity",
    "customer",
    "customer",
    "evangelist",
]
SOURCES = ["Inbound", "Outbound", "Referral", "Trade fair", "Website", "Partner", "Webinar"]
TAGS = ["emea", "apac", "renewal", "vip", "newsletter", "distributor", "pilot", "churn-risk", "q3", "ünïcode"]
PRODUCTS = [
    "tool renewal",
    "pilot",
    "expansion",
    "support contract",
    "licences",
    "hardware refresh",
    "training",
    "migration",
]
CURRENCIES = ["USD", "USD", "USD", "EUR", "EUR", "GBP", "JPY", "CHF"]
NOTES = [
    "Prefers e-mail.",
    "Met at the fair in Köln – follow up in spring.",
    'Said: "not before Q3".',
    "Line one.\nLine two, with a comma; and a semicolon.",
    "Budget ≈ 50 k€ 👍",
    "Tab\tseparated; back\\slash",
    "Ask for Zoë 🙂 or 健太.",
]
SUBJECTS = [
    "Call back",
    "Send offer",
    "Product demo",
    "Contract review",
    "Kick-off",
    "Check-in",
    "Follow up",
    "Rückruf",
]
OUTCOMES = ["connected", "voicemail", "no_answer", "busy"]
CALL_HOSTS = ["https://meet.example.com", "https://calls.example.org"]
EMAIL_HOSTS = ["example.org", "example.com", "example.net"]
HOSTILE_TEXTS = [
    "",
    " ",
    "null",
    "NaN",
    "=1+1",
    "+cmd|' /C calc'!A0",
    "'; DROP TABLE rally_contacts; --",
    'quote " and, comma; semicolon\r\nnew line\ttab',
    "\\N",
    "NUL \x00 inside",
    "\x01\x02\x7f\x80",
    "\ufeffbyte-order mark",
    "right-to-left \u202eoverride\u202c عربى",
    "combining e\u0301 and \u00e9",
    "family 👨‍👩‍👧‍👦 flag 🇺🇦",
    "astral 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "line\u2028separator\u0085next",
    "<script>alert(1)</script> [x](javascript:1) ${7*7} {{7*7}}",
    "%s %d %(name)s {0} {name}",
    "\ufffd\uffff\ufdd0",
    "long " + "0123456789" * 2_000,
]
HOSTILE_DECIMALS = [
    "0",
    "0.00",
    "-0.01",
    "9999999999999999999999999999.99",
    "0.0000000000000000000000000001",
    "1E+20",
]
HOSTILE_INSTANTS = [
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.9999999Z",
    "1969-12-31T23:59:59Z",
    "2024-02-29T12:00:00Z",
]
