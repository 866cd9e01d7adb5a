# ruff: noqa: E501 (tables and prose, one entry a line)
"""Clauses of Tarnholm's contracts: how a term is stated, asked for, and what stands around it.

Knows nothing of partners and figures.
"""

from typing import Any

TERMS: dict[str, dict[str, Any]] = {
    "term": {
        "names": ("contract term", "initial term"),
        "questions": ("How long does the contract with {e} run?", "For how many years was the contract with {e} concluded?"),
        "words": ("fixed term",),
        "sentences": (
            "The agreement begins on signature and has a fixed term of {v}.",
            "This agreement is concluded for a fixed term of {v} from the date of signature.",
            "The fixed term of this agreement is {v}, beginning on the day of signature.",
            "The parties agree on a fixed term of {v}, after which the agreement continues unless it is terminated.",
        ),
    },
    "notice": {
        "names": ("notice period", "period of notice for termination"),
        "questions": ("With how much notice can the contract with {e} be terminated?", "How many months of notice apply to the {e} contract?"),
        "words": ("notice",),
        "sentences": (
            "The agreement can be ended by written notice of {v}.",
            "Either party may terminate this agreement in writing with a notice period of {v}.",
            "Ordinary termination requires written notice of {v} to the end of a calendar quarter.",
            "A notice period of {v} applies to ordinary termination by either side.",
        ),
    },
    "cure": {
        "names": ("cure period for a breach", "time allowed to remedy a breach"),
        "questions": ("How long does a party have to remedy a breach under the {e} contract?", "Within how many days must a breach be cured under the contract with {e}?"),
        "words": ("remedied", "remedy a breach", "cure"),
        "sentences": (
            "Before terminating for a breach, a party grants the other {v} in which the breach can be remedied.",
            "A material breach that is not remedied within {v} of a written warning entitles the other party to terminate at once.",
            "Termination for cause is possible if a breach has not been remedied within {v}.",
        ),
    },
    "payment": {
        "names": ("payment term", "time allowed for payment"),
        "questions": ("Within how many days are invoices payable under the contract with {e}?", "How many days does the {e} contract give for paying invoices?"),
        "words": ("invoices are payable",),
        "sentences": (
            "Payment falls due {v} after a proper invoice has been received.",
            "Invoices are payable within {v} of receipt without deduction.",
            "{Buyer} pays correct invoices within {v} of the invoice date.",
            "The payment term is {v} net from receipt of a proper invoice.",
        ),
    },
    "discount": {
        "names": ("early payment discount", "discount for early payment"),
        "questions": ("Which discount does the {e} contract grant for early payment?", "How many percent may be deducted for early payment under the contract with {e}?"),
        "words": ("discount", "early payment"),
        "sentences": (
            "The price is reduced by a discount of {v} where payment arrives within a week.",
            "For payment within ten working days {buyer} may deduct a discount of {v}.",
            "An early payment discount of {v} is granted if the invoice is settled in the week it arrives.",
        ),
    },
    "price_cap": {
        "names": ("cap on annual price increases", "maximum price increase per year"),
        "questions": ("By how much may prices rise per year under the contract with {e}?", "Which yearly price increase does the {e} contract allow at most?"),
        "words": ("price adjustment", "prices may"),
        "sentences": (
            "No price adjustment within a calendar year may go beyond {v}.",
            "Prices may be adjusted once a year, and no price adjustment may exceed {v}.",
            "A yearly price adjustment is limited to {v} of the prices then in force.",
        ),
    },
    "late_interest": {
        "names": ("interest rate on late payments", "late payment interest"),
        "questions": ("Which interest is due on late payments under the contract with {e}?", "What interest does the {e} contract charge on overdue invoices?"),
        "words": ("interest",),
        "sentences": (
            "The interest on late payments is {v} a year, without a reminder being needed.",
            "Overdue amounts bear interest at {v} a year from the due date.",
            "If {buyer} pays late, interest of {v} a year is charged.",
        ),
    },
    "lead_time": {
        "names": ("delivery lead time", "lead time for call-offs"),
        "questions": ("How many weeks does delivery take under the contract with {e}?", "How long is the lead time for orders under the {e} contract?"),
        "words": ("lead time", "delivers within"),
        "sentences": (
            "The lead time from order to handover is {v}.",
            "{Seller} delivers within {v} of the order confirmation.",
            "The agreed lead time is {v} from receipt of a call-off order.",
            "Each call-off has a lead time of {v}, which includes packing and release.",
        ),
    },
    "penalty": {
        "names": ("penalty per week of delay", "weekly delay penalty"),
        "questions": ("Which penalty is due for each week of delay under the contract with {e}?", "How high is the delay penalty per week in the {e} agreement?"),
        "words": ("week of delay",),
        "sentences": (
            "The penalty for late delivery is {v} of the order value for every week of delay.",
            "For each week of delay {seller} owes a penalty of {v} of the value of the delayed order.",
            "A penalty of {v} of the order value falls due for every full week of delay.",
        ),
    },
    "penalty_cap": {
        "names": ("overall cap on penalties", "maximum total penalty"),
        "questions": ("At which share are penalties capped in the contract with {e}?", "How high may penalties be in total under the {e} contract?"),
        "words": ("penalties",),
        "sentences": (
            "All penalties taken together stop at {v} of the value of the order.",
            "Penalties are limited in total to {v} of the order value concerned.",
            "The sum of all penalties may not exceed {v} of the annual contract value.",
        ),
    },
    "response": {
        "names": ("response time for breakdowns", "breakdown response time"),
        "questions": ("Within how many hours must a breakdown be answered under the contract with {e}?", "How quickly is a technician or dispatcher due under the {e} contract?"),
        "words": ("response time", "responds"),
        "sentences": (
            "After a breakdown call {seller} responds on site or by remote access within {v}.",
            "{Seller} responds to a reported breakdown within {v}, on weekends as well.",
            "The response time for breakdowns is {v} from the call to the duty line.",
        ),
    },
    "availability": {
        "names": ("guaranteed availability", "availability guarantee"),
        "questions": ("Which availability is guaranteed under the contract with {e}?", "What share of time must the service be available under the {e} contract?"),
        "words": ("availability",),
        "sentences": (
            "Over each quarter an availability of {v} is guaranteed.",
            "{Seller} guarantees an availability of {v}, measured over a calendar quarter.",
            "The guaranteed availability is {v} outside the agreed maintenance windows.",
        ),
    },
    "warranty": {
        "names": ("warranty period", "warranty term"),
        "questions": ("How long is the warranty under the contract with {e}?", "How many months of warranty does the {e} contract provide?"),
        "words": ("warranty period", "warrants", "warranty of"),
        "sentences": (
            "Parts and workmanship carry a warranty of {v}.",
            "{Seller} warrants the goods and work for {v} from handover.",
            "The warranty period is {v} and starts with acceptance.",
            "Under this agreement a warranty of {v} applies to every delivered part.",
        ),
    },
    "complaint": {
        "names": ("complaint window for visible defects", "time allowed for reporting visible defects"),
        "questions": ("Within how many days must visible defects be reported under the contract with {e}?", "How long is the complaint window in the {e} contract?"),
        "words": ("visible defects",),
        "sentences": (
            "For visible defects, a complaint has to be made within {v} of receipt.",
            "Visible defects are to be reported within {v} of delivery or completion.",
            "{Buyer} reports visible defects no later than {v} after receipt.",
        ),
    },
    "liability": {
        "names": ("liability cap", "limit of liability"),
        "questions": ("Up to which amount is liability limited in the contract with {e}?", "At what amount does the {e} agreement cap liability?"),
        "words": ("liability of either", "liability is capped"),
        "sentences": (
            "In all other cases the liability of either party ends at {v} for each contract year.",
            "Except for intent, liability is capped at {v} for each contract year.",
            "The liability of either party is limited to {v} for each event of damage.",
        ),
    },
    "insurance": {
        "names": ("required insurance cover", "minimum insurance cover"),
        "questions": ("Which insurance cover must be kept under the contract with {e}?", "How much insurance cover does the {e} contract require?"),
        "words": ("insurance",),
        "sentences": (
            "Proof of public liability insurance with cover of {v} is sent to {buyer} every year.",
            "{Seller} maintains public liability insurance with cover of at least {v}.",
            "Insurance cover of {v} is kept in force by {seller} for the whole duration.",
        ),
    },
    "volume": {
        "names": ("planned annual volume", "expected yearly purchase volume"),
        "questions": ("What yearly volume is planned in the contract with {e}?", "How much business per year does the {e} contract expect?"),
        "words": ("annual volume",),
        "sentences": (
            "For planning purposes the annual volume is put at {v}.",
            "The parties plan an annual volume of {v}, which is a forecast and not a commitment.",
            "An annual volume of {v} is assumed for capacity planning.",
        ),
    },
    "min_order": {
        "names": ("minimum order value", "smallest order value accepted"),
        "questions": ("What is the smallest order the {e} contract allows?", "Below which value are orders not accepted under the contract with {e}?"),
        "words": ("minimum order", "single order"),
        "sentences": (
            "Call-offs below the minimum order value of {v} may be refused.",
            "The minimum order value is {v} for each call-off.",
            "A single order must reach a value of at least {v}.",
        ),
    },
    "forecast": {
        "names": ("rolling forecast period", "forecast horizon"),
        "questions": ("How many weeks ahead does the forecast reach under the contract with {e}?", "For how many weeks is a rolling forecast shared under the {e} contract?"),
        "words": ("rolling forecast",),
        "sentences": (
            "{Buyer} updates a rolling forecast every month, looking {v} ahead.",
            "{Buyer} shares a rolling forecast that covers the next {v}.",
            "A rolling forecast for {v} is sent at the start of every month.",
        ),
    },
    "confidentiality": {
        "names": ("confidentiality period after the end of the contract", "duration of confidentiality after termination"),
        "questions": ("How long does confidentiality last after the contract with {e} ends?", "For how many years are the parties bound to secrecy after the {e} contract?"),
        "words": ("confidentiality continue", "keep confidential"),
        "sentences": (
            "For {v} after the end of the agreement the parties keep confidential what they have learned.",
            "The duties of confidentiality continue for {v} after the end of this agreement.",
            "Both parties keep confidential what they have learned for {v} after termination.",
        ),
    },
    "audit_notice": {
        "names": ("announcement period for audits", "advance warning required for an audit"),
        "questions": ("How many days ahead must an audit be announced under the contract with {e}?", "How early must audits be announced under the {e} contract?"),
        "words": ("audits are announced", "may audit"),
        "sentences": (
            "{Buyer} may audit the quality system and gives {v} of warning in writing.",
            "Audits are announced at least {v} ahead and take place in business hours.",
            "{Buyer} may audit the relevant sites after announcing the visit {v} beforehand.",
        ),
    },
}  # fmt: skip

SUBJECTS = {
    "Supplier": (
        "{p} supplies Tarnholm Hydraulics on the basis of the orders placed under this {kind}.",
        "Tarnholm Hydraulics has relied on {p} for several years, and both sides wish to put the relationship on a lasting footing.",
        "This {kind} governs all orders that Tarnholm Hydraulics places with {p}.",
        "{p} has visited the Tarnholm plant, knows the drawings concerned and confirms that it can meet them.",
    ),
    "Customer": (
        "Tarnholm Hydraulics serves {p} on the basis of this {kind}.",
        "{p} operates equipment made by Tarnholm Hydraulics and wishes to secure its upkeep on fixed terms.",
        "This {kind} governs all deliveries and work that Tarnholm Hydraulics carries out for {p}.",
        "The sites of {p} that fall under this agreement are listed in the site register, which the parties keep together.",
    ),
}

BOILERPLATE = {
    "Parties and purpose": (
        "General terms of business of either side do not apply, even if an order refers to them.",
        "Annexes form part of the agreement; if they contradict it, the text of the agreement prevails.",
        "Each party names one contact person for commercial and one for technical matters.",
        "The parties intend to work together in a spirit of openness and to raise problems early.",
        "Definitions used in the annexes have the same meaning as in the body of the agreement.",
        "Affiliated companies of either party may join by a written declaration.",
    ),
    "Subject matter and volume": (
        "The scope is described in Annex A, which lists the items, drawings and revisions.",
        "Changes to the scope are made in writing and signed by both contact persons.",
        "Orders are placed by electronic message, and a confirmation follows on the next working day.",
        "Nothing in this clause obliges either party to exclusivity.",
        "Samples are supplied free of charge before a new revision goes into series.",
        "Where a part is about to be discontinued, {seller} says so in good time and offers a last call-off.",
        "Packaging follows the packing instruction in Annex C.",
    ),
    "Term and termination": (
        "The right to terminate for good cause remains unaffected.",
        "Orders already confirmed are carried out under the terms of this agreement, even after it has ended.",
        "Upon its end, drawings, tools and samples are returned or destroyed at the owner's choice.",
        "Insolvency proceedings, a change of control or lasting force majeure count as good cause.",
        "Before terminating, the contact persons meet once and try to settle the matter.",
        "A termination sent by electronic message is valid only if it bears a qualified signature.",
    ),
    "Prices and payment": (
        "Prices follow the schedule in Annex B and are stated without value added tax.",
        "A change in raw material cost is shown openly with the index on which it rests.",
        "Invoices quote the order number, the delivery note and the tax number.",
        "Set-off is possible only with claims that are undisputed or established by a court.",
        "Travel, packing and insurance in transit are included unless Annex B says otherwise.",
        "Disputed items are paid once they are settled; the remainder of the invoice is paid on time.",
    ),
    "Delivery and delay": (
        "Partial deliveries need the consent of {buyer}.",
        "If {seller} sees that a date cannot be kept, it tells {buyer} at once and states the new date.",
        "Risk passes when the goods have been unloaded at the agreed place and the note has been signed.",
        "Further damages remain possible, and what has been paid for delay is counted toward them.",
        "Force majeure suspends the duties concerned for as long as it lasts.",
        "Goods travel with test certificates, without which the delivery is not complete.",
    ),
    "Service levels": (
        "Faults are reported to the duty line, which gives each call a number.",
        "The levels are measured by {seller} and reported each month in a form both sides have agreed.",
        "Planned maintenance is arranged with the shift lead and does not count as an outage.",
        "If a level is missed in two months running, the parties meet and agree on a plan.",
        "Access to the site, lighting and lifting gear are provided free of charge.",
        "A list of critical equipment is attached as Annex D and reviewed at the yearly meeting.",
    ),
    "Warranty and complaints": (
        "Defects are repaired or the part is replaced, at the choice of {buyer}.",
        "Hidden defects are reported as soon as they have been found.",
        "Costs of dismantling and refitting are borne by {seller} where it is responsible for the defect.",
        "A repaired part is tested again before it is put back into operation.",
        "Normal wear and misuse are excluded, and the burden of proof follows the law.",
        "Both sides keep records that allow a part to be traced to its lot.",
    ),
    "Liability and insurance": (
        "Each party is liable for damage that it causes through intent or negligence.",
        "Loss of profit is not compensated unless it was caused by gross negligence.",
        "The limitation does not apply to injury to life, body or health.",
        "Claims are raised in writing and state how the damage arose.",
        "Each party takes reasonable steps to keep the damage small.",
        "The parties inform each other at once when a third party makes a claim.",
    ),
    "Confidentiality, records and audits": (
        "Drawings, prices and process data are used only for the purpose of this agreement.",
        "Information that is public or was known before is not covered.",
        "Copies are limited to what the work requires, and subcontractors are bound in the same way.",
        "Findings are written down, and a plan with dates follows within the month.",
        "Personal data is handled under the separate data processing annex.",
        "Neither party uses the name of the other in advertising without consent.",
    ),
    "Final provisions": (
        "Changes to this agreement, this clause included, require writing.",
        "If a provision is invalid, the parties replace it by one that comes close to its commercial purpose.",
        "The law at the registered seat of Tarnholm Hydraulics applies, without its conflict rules.",
        "Disputes are first put to the management of both sides and only then to the courts.",
        "Neither party may assign rights under this agreement without the consent of the other.",
        "Each party has received one signed copy, and the annexes have been initialed page by page.",
        "Headings serve orientation only and do not affect how a clause is read.",
        "Messages to the other party go to the contact persons named in Annex E.",
    ),
}
