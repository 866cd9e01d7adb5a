# ruff: noqa: E501 (tables and prose, one entry a line)
"""The price lists' articles and conditions, and the prose around them.

Knows nothing of how they are turned into sections.
"""

from typing import Any

ITEM_SENTENCES = (
    "The {i} is listed at EUR {v}.",
    "For the {i} we charge EUR {v}.",
    "The list price of the {i} is EUR {v}.",
    "In {y} the {i} costs EUR {v}.",
    "The {i} is available at EUR {v} net.",
    "The price for the {i} has been set at EUR {v}.",
    "The {i} comes to EUR {v} without tax.",
)

CONDITIONS: dict[str, dict[str, Any]] = {
    "min_order": {
        "names": ("minimum order value", "smallest order value"), "words": ("minimum order",),
        "sentences": ("The minimum order value is {v}.", "A minimum order value of {v} applies to every order.", "Orders must reach a minimum order value of {v} net."),
    },
    "small_order": {
        "names": ("surcharge for small orders", "small-order surcharge"), "words": ("small order", "small-order"),
        "sentences": ("A small-order surcharge of {v} is added below that value.", "For small orders a handling charge of {v} is invoiced."),
    },
    "express": {
        "names": ("express surcharge", "surcharge for express handling"), "words": ("express",),
        "sentences": ("Express handling carries a surcharge of {v} on the list price.", "For express orders we add {v} to the price.", "The express surcharge is {v} and must be agreed by telephone."),
    },
    "delivery": {
        "names": ("usual delivery time", "standard delivery time"), "words": ("delivery time", "leave the warehouse"),
        "sentences": ("The usual delivery time is {v} from the order confirmation.", "Delivery takes {v} as a rule, which is the standard delivery time.", "Our standard delivery time is {v}, holidays not counted."),
    },
    "packing": {
        "names": ("packing charge", "charge for packing"), "words": ("packing charge", "packing is charged"),
        "sentences": ("A packing charge of {v} applies to each pallet.", "Packing is charged at {v} for each consignment."),
    },
    "volume": {
        "names": ("volume discount", "discount for large volumes"), "words": ("volume discount",),
        "sentences": ("A volume discount of {v} is granted from ten units of the same position.", "From the tenth unit on, a volume discount of {v} is deducted.", "Customers with a frame order receive a volume discount of {v}."),
    },
    "validity": {
        "names": ("validity of quotations", "validity period of quotations"), "words": ("quotations",),
        "sentences": ("Quotations based on this list remain valid for {v}.", "Our quotations are binding for {v} from their date.", "Customers can accept our quotations for {v}."),
    },
    "increase": {
        "names": ("average price increase over the previous list", "average increase over the previous list"), "words": ("on average", "previous list"),
        "sentences": ("Compared with the previous list, prices have risen by {v} on average.", "On average, prices are {v} higher than in the previous list.", "The average increase over the previous list is {v}."),
    },
    "payment": {
        "names": ("payment term", "payment period"), "words": ("payable", "payment term", "payment is due"),
        "sentences": ("Invoices are payable within {v} without deduction.", "Payment is due {v} after the invoice date.", "The payment term is {v} net."),
    },
    "price_hold": {
        "names": ("notice given before price changes", "notice period for price changes"), "words": ("price changes", "changes in price"),
        "sentences": ("Price changes within the year are announced {v} ahead.", "We announce changes in price {v} before they take effect."),
    },
}  # fmt: skip

HEADINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "goods": (("Further articles", "Additional articles", "More from the range"), ("Accessories and options", "Special versions and options", "Supplements")),
    "service": (("Measurements and inspections", "Work at a fixed price"), ("Reports and special services", "Further services")),
    "rental": (("Rental by the week", "Further rental items"), ("Accessories and services", "Supplements")),
}  # fmt: skip

OPENING = "This list covers {l} and replaces all earlier editions."
FILLERS: dict[str, dict[str, tuple[str, ...]]] = {
    "opening": {
        "any": (
            "The list is meant for trade customers and operators with a frame order.",
            "All prices are net, in euros, and without value added tax.",
            "The {y} edition was shortened: what nobody ordered is no longer shown.",
            "Anything that is not shown can be requested from the sales desk.",
            "Printed copies are sent on request, and the file on the customer portal is the binding one.",
            "Questions about the list are answered by the depot in your region.",
        ),
        "goods": (
            "Where an article is sold in several versions, the price refers to the standard version.",
            "Local taxes and duties are the buyer's business outside the customs union.",
        ),
        "service": ("The rates apply to plants that can be reached by van, and offshore work is quoted separately.",),
        "rental": ("Rental begins when the unit leaves the depot and ends when it is back there.",),
    },
    "table": {
        "any": ("The table shows what is asked for most often.", "Article numbers stay the same over the years so that stored orders keep working."),
        "goods": (
            "Drawings for every article can be called up on the customer portal.",
            "Prices include the printed manual and the test sheet.",
            "Where a number ends in a letter, the letter stands for the sealing.",
            "Stock is kept in the central warehouse and shown on the portal.",
        ),
        "service": (
            "Work on Sundays and public holidays is agreed before it begins.",
            "Time is counted from arrival at the site and rounded up to the next quarter of an hour.",
            "Tools and measuring instruments are included.",
        ),
        "rental": (
            "Each unit is cleaned and tested before it goes out again.",
            "Fuel and lubricants are charged by consumption.",
            "The customer provides a firm place to stand and keeps the access clear.",
        ),
    },
    "items": {
        "any": (
            "Our application desk helps with the selection.",
            "Combinations with other positions of this section are possible.",
            "Prices for larger quantities are quoted by the sales desk.",
            "Public customers receive the same prices as everyone else.",
        ),
        "goods": (
            "Most of these articles are kept in stock in the central warehouse.",
            "Fitting is not included and is arranged with the nearest depot.",
            "Deliveries are ready to connect, with cable and plug where these are needed.",
            "Please state the serial number of the machine with the order.",
            "Customers with older plants should ask whether an adapter is needed.",
            "Demand has been steady, so we have kept the packing units unchanged.",
            "Technical data can be found in the product notes.",
            "Used parts are taken back and recycled.",
            "Versions with a longer cable are made to order.",
        ),
        "service": (
            "Appointments are agreed with the dispatcher of the depot.",
            "The customer receives a written report with photographs.",
            "Please have the operating log at hand when the technician arrives.",
            "Follow-up visits are offered at the same conditions.",
            "Findings that affect safety are reported by telephone on the same day.",
            "Several jobs at one site can be combined into a single visit.",
            "Interpreters and site passes are arranged by the customer.",
            "Results are also sent as a file for the maintenance system.",
        ),
        "rental": (
            "Delivery and collection are arranged by the depot.",
            "Units that are returned late are charged by the day.",
            "A short introduction on site is included.",
            "Please check oil and fuel once a day.",
            "Theft and damage are to be insured by the customer.",
            "Reservations are binding when the depot has confirmed them.",
            "In times of flood, public services are supplied first.",
            "Longer rental periods are quoted separately.",
        ),
    },
    "Ordering and delivery": {
        "any": (
            "Orders reach us through the portal, by mail or through the depot.",
            "An order is binding when our confirmation has been sent.",
            "Dates for large jobs are agreed one by one.",
        ),
        "goods": (
            "Part deliveries are made only if the customer agrees.",
            "Collection at the warehouse is possible on working days after a call.",
            "Pallets are exchanged or charged at cost.",
            "Goods are insured in transit up to the agreed place.",
            "Please check the consignment for damage while the driver is still there.",
        ),
        "service": (
            "Site access, lifting gear and a parking space are provided by the customer.",
            "Waiting time that we have not caused is invoiced.",
            "Appointments can be moved free of charge until the day before.",
            "Work begins only after the plant has been locked and tagged.",
        ),
        "rental": (
            "A signed handover sheet records the state of the unit.",
            "Transport is charged by distance from the depot.",
            "Collection at the depot is possible on working days after a call.",
            "Units are handed over only to trained staff.",
        ),
    },
    "Discounts, payment and validity": {
        "any": (
            "Discounts cannot be combined with project prices.",
            "Errors in this list give no claim to the printed price.",
            "New customers pay the first order in advance.",
            "Terms in frame orders take precedence over this list.",
            "Please quote the customer number in every payment.",
            "A credit check may be made before a large order is accepted.",
        ),
        "goods": ("Resellers receive their own terms, which are set out in the reseller letter.", "Goods remain our property until they have been paid for in full."),
        "service": ("Work under a maintenance agreement is billed at the rates agreed there.",),
        "rental": ("A deposit may be asked for and is returned with the final invoice.",),
    },
}  # fmt: skip

LISTS: tuple[dict[str, Any], ...] = (
    {"id": "prices/booster-and-centrifugal-2025.html", "split": "examples", "label": "booster and centrifugal pumps", "year": "2025", "noun": "Pump",
         "table": (("Torvik 25 standard", "TB-1025", "3,415"), ("Torvik 60 standard", "TB-1060", "8,940"), ("Hauk 200 standard", "HC-2200", "17,650")),
         "prose": (("Torvik 25 in bronze", "4,870"), ("Torvik 60 duplex set", "16,720"), ("Hauk 200 for sea water", "23,480"), ("Hauk 120", "11,235"),
                ("Torvik base frame", "615"), ("Torvik pressure sensor kit", "248"), ("Hauk coupling guard", "187.50"), ("Hauk frequency converter", "4,395")),
         "conditions": {"min_order": "150 EUR", "small_order": "28 EUR", "delivery": "25 days", "volume": "7 percent", "validity": "60 days", "increase": "3.4 percent"},
         "absent": ("Torvik 40", "Hauk 350")},
    {"id": "prices/booster-and-centrifugal-2026.pdf", "split": "examples", "label": "booster and centrifugal pumps", "year": "2026", "noun": "Pump",
         "table": (("Torvik 25 standard", "TB-1025", "3,560"), ("Torvik 60 standard", "TB-1060", "9,215"), ("Hauk 200 standard", "HC-2200", "18,190")),
         "prose": (("Torvik 25 in bronze", "5,045"), ("Torvik 60 duplex set", "17,380"), ("Hauk 200 for sea water", "24,630"), ("Hauk 120", "11,590"),
                ("Torvik base frame", "642"), ("Torvik pressure sensor kit", "259"), ("Hauk coupling guard", "196.50"), ("Hauk frequency converter", "4,520")),
         "conditions": {"min_order": "175 EUR", "express": "12 percent", "delivery": "23 days", "volume": "6.5 percent", "increase": "3.7 percent", "payment": "30 days"},
         "absent": ("Torvik 90", "Hauk 275")},
    {"id": "prices/submersible-and-borehole-2026.md", "split": "cases", "label": "submersible and borehole pumps", "year": "2026", "noun": "Pump",
         "table": (("Skelda 110 standard", "SS-3110", "12,870"), ("Dype 75 standard", "DB-4075", "10,325"), ("Kvern 90 standard", "KG-5090", "2,985")),
         "prose": (("Skelda 110 with cutting ring", "13,940"), ("Skelda 50", "6,475"), ("Dype 75 in stainless steel", "14,280"), ("Dype 120", "16,845"),
                ("Kvern pit chamber", "1,735"), ("Skelda guide rail set", "864"), ("Dype cable splice kit", "92.40"), ("Kvern alarm unit", "318")),
         "conditions": {"min_order": "220 EUR", "packing": "64 EUR", "delivery": "32 days", "volume": "5.5 percent", "validity": "45 days", "increase": "4.1 percent"},
         "absent": ("Skelda 180", "Dype 200")},
    {"id": "prices/water-treatment-2026.md", "split": "examples", "label": "water treatment units", "year": "2026", "noun": "Unit",
         "table": (("Vannor 8 standard", "VF-6008", "15,480"), ("Maren 15 standard", "MU-7015", "5,760"), ("Ryst 5 standard", "RD-8005", "1,295")),
         "prose": (("Vannor 20", "27,340"), ("Maren 40", "9,865"), ("Ryst 5 twin set", "2,410"), ("Vannor backwash controller", "1,845"),
                ("Maren replacement lamp", "274"), ("Maren quartz sleeve", "138.60"), ("Ryst suction lance", "83.20"), ("Vannor media refill", "1,160")),
         "conditions": {"small_order": "36 EUR", "express": "18 percent", "delivery": "40 days", "validity": "75 days", "payment": "21 days", "price_hold": "8 weeks"},
         "absent": ("Vannor 50", "Maren 5")},
    {"id": "prices/spare-parts-2026.docx", "split": "cases", "label": "spare parts", "year": "2026", "noun": "Spare part",
         "table": (("Torvik shaft seal", "TB-9001", "126.80"), ("Hauk impeller", "HC-9014", "735"), ("Skelda cutter", "SS-9020", "412")),
         "prose": (("Skelda cable entry", "68.90"), ("Hauk bearing set", "294"), ("Dype thrust bearing", "526"), ("Torvik gasket kit", "39.40"),
                ("Kvern grinder head", "347"), ("Ryst diaphragm", "57.30"), ("Vannor nozzle plate", "985"), ("Maren ballast unit", "231")),
         "conditions": {"min_order": "60 EUR", "small_order": "14.50 EUR", "express": "22 percent", "delivery": "4 days", "packing": "9.80 EUR", "payment": "14 days"},
         "absent": ("Hauk oil cooler", "Torvik flywheel")},
    {"id": "prices/service-rates-2026.md", "split": "examples", "label": "service work", "year": "2026", "noun": "Service",
         "table": (("field technician hour", "SV-0100", "118"), ("commissioning engineer hour", "SV-0200", "164"), ("workshop hour", "SV-0300", "97.50")),
         "prose": (("vibration measurement", "545"), ("yearly inspection of a booster station", "1,285"), ("thermal imaging report", "390"), ("pump alignment with laser", "475"),
                ("remote monitoring connection", "52.50"), ("well camera survey", "1,940"), ("oil analysis", "84.60"), ("emergency call-out", "325")),
         "conditions": {"express": "45 percent", "volume": "9 percent", "increase": "4.6 percent", "payment": "18 days", "price_hold": "10 weeks", "validity": "90 days"},
         "absent": ("diver hour", "hydraulic transient study")},
    {"id": "prices/rental-2025.html", "split": "cases", "label": "rental equipment", "year": "2025", "noun": "Rental item",
         "table": (("weekly rental of a Hauk 200 pump", "RE-0210", "1,045"), ("weekly rental of a Skelda 110 pump", "RE-0220", "876"), ("weekly rental of a diesel power pack", "RE-0230", "1,390")),
         "prose": (("weekly rental of a flow meter", "143"), ("weekly rental of a mobile filter trailer", "2,165"), ("cleaning after rental", "268"), ("hose bridge", "36.70"),
                ("set of suction hoses", "154.20"), ("fuel tank on a trailer", "417"), ("weekly rental of a control cabinet", "329"), ("night watch service", "582")),
         "conditions": {"min_order": "320 EUR", "delivery": "2 days", "express": "35 percent", "volume": "11 percent", "payment": "10 days", "increase": "2.9 percent"},
         "absent": ("weekly rental of a vacuum truck", "weekly rental of a dewatering barge")},
)  # fmt: skip
