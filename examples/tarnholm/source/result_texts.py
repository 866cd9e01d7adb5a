# ruff: noqa: E501 (tables and prose, one entry a line)
"""How a figure of a report is stated and asked for, and the commentary around it.

Knows nothing of particular quarters.
"""

from typing import Any

REGION_NAMES = ("Nordic", "Central European", "Southern European", "Overseas")

HEADINGS = {
    "summary": ("revenue", "growth", "profit"),
    "orders": ("intake", "backlog", "delivery", "lead"),
    "regions": (),
    "earnings": ("margin", "net", "research", "dividend"),
    "cash": ("capex", "cash", "equity", "dso"),
    "operations": ("complaints", "utilization", "renewable"),
    "people": ("people", "training", "sickness", "apprentices", "tenure"),
    "outlook": (),
}

FIGURES: dict[str, dict[str, Any]] = {
    "revenue": {
        "unit": "EUR_m", "names": ("revenue", "total revenue"), "words": ("revenue",),
        "sentences": (
            "{E} closed {p} with revenue of {v}.",
            "Revenue came to {v} in {p}.",
            "In {p} revenue reached {v}.",
            "{E} recorded revenue of {v}.",
            "Revenue for {p} amounted to {v}, with deliveries spread evenly over the months.",
        ),
    },
    "growth": {
        "unit": "percent",
        "names": ("revenue growth over the same period of the previous year", "year-on-year revenue growth"),
        "words": ("year before", "previous year"),
        "sentences": (
            "Revenue was {v} higher than in the same period of the year before.",
            "Compared with the same period of the previous year, revenue grew by {v}.",
            "Growth over the same period of the previous year was {v}.",
        ),
    },
    "profit": {
        "unit": "EUR_m", "names": ("operating profit", "operating result"), "words": ("operating profit",),
        "sentences": (
            "Operating profit stood at {v}.",
            "{E} earned an operating profit of {v} in {p}.",
            "After all operating costs, operating profit was {v}.",
            "Operating profit for {p} came in at {v}.",
        ),
    },
    "intake": {
        "unit": "EUR_m", "names": ("order intake", "value of new orders"), "words": ("order intake", "new orders"),
        "sentences": (
            "Order intake amounted to {v}.",
            "New orders worth {v} were booked in {p}.",
            "{E} took in new orders of {v}.",
            "In {p} order intake was {v}, supported by public customers.",
        ),
    },
    "backlog": {
        "unit": "EUR_m", "names": ("order backlog", "backlog at the end of the period"), "words": ("backlog",),
        "sentences": (
            "The order backlog at the end of the period was {v}.",
            "{E} ended {p} with an order backlog of {v}.",
            "At closing date the backlog stood at {v}.",
        ),
    },
    "delivery": {
        "unit": "percent", "names": ("on-time delivery rate", "share of orders delivered on time"), "words": ("on time", "on-time"),
        "sentences": (
            "Of all orders, {v} were delivered on time.",
            "The on-time delivery rate was {v} in {p}.",
            "On-time delivery reached {v}, counted from the first confirmed date.",
        ),
    },
    "lead": {
        "unit": "weeks", "names": ("average lead time", "mean lead time"), "words": ("lead time",),
        "sentences": (
            "The average lead time was {v} from order to dispatch.",
            "Customers waited {v} on average, which is the lead time we publish.",
        ),
    },
    "margin": {
        "unit": "percent", "names": ("operating margin", "return on sales at the operating level"), "words": ("operating margin", "operating return"),
        "sentences": (
            "The operating margin was {v}.",
            "The figures correspond to an operating margin of {v}.",
            "In {p} {e} achieved an operating margin of {v}.",
        ),
    },
    "net": {
        "unit": "EUR_m", "names": ("net profit", "net result after tax"), "words": ("net profit", "after interest and tax"),
        "sentences": (
            "After interest and tax, net profit was {v}.",
            "Net profit for {p} amounted to {v}.",
            "{E} reports a net profit of {v}.",
        ),
    },
    "research": {
        "unit": "EUR_m", "names": ("spending on research and development", "research and development expense"), "words": ("research",),
        "sentences": (
            "Spending on research and development was {v}.",
            "{E} put {v} into research and development.",
            "Research and development took {v} in {p}.",
        ),
    },
    "dividend": {
        "unit": "EUR", "digits": 2, "names": ("proposed dividend per share", "dividend per share"), "words": ("dividend",),
        "sentences": ("The board proposes a dividend of {v} per share.", "Shareholders are to receive a dividend of {v} for each share."),
    },
    "capex": {
        "unit": "EUR_m", "names": ("capital expenditure", "investment in plant and equipment"), "words": ("capital expenditure", "invested"),
        "sentences": (
            "Capital expenditure was {v}.",
            "{E} invested {v} in plant and equipment.",
            "In {p} capital expenditure came to {v}.",
        ),
    },
    "cash": {
        "unit": "EUR_m", "names": ("free cash flow", "free cash flow after investment"), "words": ("free cash flow",),
        "sentences": (
            "Free cash flow was {v}.",
            "{E} generated free cash flow of {v} in {p}.",
            "After investment, free cash flow amounted to {v}.",
        ),
    },
    "equity": {
        "unit": "percent", "names": ("equity ratio", "share of equity in total assets"), "words": ("equity",),
        "sentences": (
            "The equity ratio stood at {v} on the closing date.",
            "Equity made up {v} of total assets.",
            "At the end of {p} the equity ratio was {v}.",
        ),
    },
    "dso": {
        "unit": "days", "digits": 0, "names": ("average collection period for invoices", "days sales outstanding"), "words": ("collection", "customers took"),
        "sentences": (
            "Customers took {v} on average to pay their invoices.",
            "The average collection period for invoices was {v}.",
            "Invoices were paid after {v} on average, which is the collection period we track.",
        ),
    },
    "complaints": {
        "unit": "days", "names": ("average time to close a complaint", "mean time for closing complaints"), "words": ("complaint",),
        "sentences": (
            "A complaint was closed after {v} on average.",
            "Closing a customer complaint took {v} on average in {p}.",
        ),
    },
    "utilization": {
        "unit": "percent", "names": ("capacity utilization", "average capacity utilization"), "words": ("utilization",),
        "sentences": (
            "Capacity utilization averaged {v}.",
            "In {p} capacity utilization was {v}.",
        ),
    },
    "renewable": {
        "unit": "percent", "names": ("share of renewable electricity", "renewable share of electricity use"), "words": ("renewable",),
        "sentences": (
            "Renewable sources covered {v} of electricity use.",
            "The renewable share of electricity was {v} in {p}.",
        ),
    },
    "people": {
        "unit": "people", "digits": 0, "names": ("headcount", "number of employees"), "words": ("employed", "workforce"),
        "sentences": (
            "{E} employed {v} at the end of {p}.",
            "The workforce numbered {v} on the closing date.",
            "At the end of the period, {v} were employed.",
        ),
    },
    "training": {
        "unit": "hours", "names": ("average training time per employee", "training hours per employee"), "words": ("training",),
        "sentences": (
            "Each employee spent {v} in training on average.",
            "Average training time was {v} per employee in {p}.",
            "Training took {v} per employee, most of it on the shop floor.",
        ),
    },
    "sickness": {
        "unit": "percent", "names": ("sickness rate", "rate of absence through illness"), "words": ("sickness", "absence"),
        "sentences": (
            "The sickness rate was {v}.",
            "Absence through illness came to {v} of working time.",
            "In {p} the sickness rate was {v}.",
        ),
    },
    "apprentices": {
        "unit": "people", "digits": 0, "names": ("number of apprentices", "apprentice headcount"), "words": ("apprentice",),
        "sentences": (
            "A total of {v} were enrolled as apprentices.",
            "The apprentice program counted {v} at the end of {p}.",
        ),
    },
    "tenure": {
        "unit": "years", "names": ("average length of service", "mean length of service of employees"), "words": ("length of service", "stayed with"),
        "sentences": (
            "The average length of service is {v}.",
            "Employees have stayed with us for {v} on average.",
        ),
    },
}  # fmt: skip

TOPICS = (
    "start of the new planning software in the northern depots",
    "planning software extended to the central warehouse",
    "renewal of two framework contracts with public water suppliers",
    "refurbishment of the endurance test stand",
    "first deliveries of the revised grinder pump",
    "opening of a training center next to the main plant",
    "switch of the service fleet to electric vans",
    "new regional depot in the south",
    "audit of the foundry cell by a large customer",
    "extension of remote monitoring to older booster stations",
    "pilot of a take-back scheme for worn pumps",
    "consolidation of two warehouses",
    "new application desk for filter units",
    "trade fair with a first look at the next borehole pump",
    "certification of the dosing pumps for drinking water",
    "new paint line in the main plant",
    "agreement with the works council on flexible shifts",
    "change of the auditing firm after the usual term",
    "flood relief work for three municipalities",
    "field trial of a quiet drive in a hotel",
    "new supplier for rolling bearings",
    "digital test sheets for all large pumps",
    "summer school for apprentices",
    "lease of an additional storage hall",
    "introduction of a common spare part number",
    "joint project with a technical university on seal wear",
    "completion of the heat recovery in machining",
    "first order from a desalination plant",
    "closing of the old spray booth",
    "translation of all manuals into two more languages",
    "new incident line for information security",
    "review of packaging with the largest logistics partner",
    "delivery of a booster station for a hospital",
    "repeat audit of the calibration laboratory",
    "merger of the export desks",
    "second round of the employee share plan",
    "relaunch of the customer portal",
    "new crane in the assembly hall",
)

SLOTS: dict[str, tuple[str, ...]] = {
    "market": ("the food industry", "breweries and dairies", "municipal waterworks", "the paper industry", "hospitals", "horticulture", "chemical plants",
               "district heating", "shipyards", "campsites and hotels"),
    "machine": ("a machining center for the main plant", "a balancing machine", "an overhead crane", "two test pumps with drives", "a coordinate bench",
                "a shot-blasting cabin", "a packing robot", "solar panels on the roof of the warehouse", "a wash bay for returned units", "charging points for the vans"),
    "line": ("booster pumps", "borehole pumps", "filter units", "grinder pumps", "dosing pumps", "centrifugal pumps", "ultraviolet units", "sewage pumps"),
    "cost": ("castings", "copper", "energy", "freight", "electronics", "packaging", "stainless steel", "insurance"),
    "cause": ("Late castings", "Missing certificates", "A defective test stand", "Illness in assembly", "Customs formalities", "Late motors"),
    "step": ("the paint shop", "final assembly", "the casting line", "dispatch", "incoming inspection", "the motor workshop", "the winding shop"),
}  # fmt: skip

FILLERS: dict[str, Any] = {
    "heading summary": ("Summary", "At a glance", "Overview", "Business in brief"),
    "heading orders": ("Orders and delivery", "Order situation", "Demand and deliveries", "Order book"),
    "heading regions": ("Revenue by region", "Regions", "Regional development", "Where the revenue came from"),
    "heading earnings": ("Earnings", "Profitability", "Earnings and development spending", "Result"),
    "heading cash": (
        "Investment and balance sheet",
        "Cash and balance sheet",
        "Financial position",
        "Liquidity and investment",
    ),
    "heading operations": ("Operations", "Plants and processes", "Operational indicators", "In the plants"),
    "heading people": ("People", "Employees", "Team", "Our people"),
    "heading outlook": ("Outlook", "Looking ahead", "Expectations", "What comes next"),
    "summary": (
        "Demand from {market} held up better than we had planned for.",
        "Customers placed fewer large projects and more repeat orders than in earlier periods.",
        "Prices for {cost} eased, while other costs remained hard to plan.",
        "The mix shifted toward larger units, which take longer to build and to invoice.",
        "Several deliveries planned for the following period could be brought forward.",
        "Price adjustments made at the turn of the year were accepted without major losses of customers.",
        "Exchange rates had little influence because most contracts are written in euros.",
        "Bad weather delayed work on open construction sites and with it some acceptances.",
        "The management board considers the development satisfactory and broadly in line with the plan.",
        "Competition remained strong in standard products and moderate in engineered units.",
        "Demand for {line} was stronger than for the rest of the range.",
        "Business with {market} was uneven from month to month.",
        "Bottlenecks in the supply of {cost} have been overcome.",
        "Customers once more asked for shorter delivery times rather than for lower prices.",
    ),
    "orders": (
        "Public tenders took longer to decide, which moved some awards to a later date.",
        "Cancellations were rare and concerned small orders only.",
        "Repeat business from {market} was brisk.",
        "The project pipeline contains several desalination plants for which we have made offers.",
        "Inquiries for energy-saving {line} rose again.",
        "Planning in the foundry cell has been changed so that urgent orders no longer disturb the series.",
        "The share of engineered units in new business was higher than usual.",
        "{cause} delayed some orders in the last month.",
        "Sales teams report that customers decide faster when a test unit is offered.",
        "A planning board in {step} now shows the state of each order to everyone.",
        "Orders from {market} remained weak.",
        "Service parts for older series continued to sell well through the depots.",
    ),
    "regions": (
        "The table shows how revenue was spread over the sales regions.",
        "Regions are assigned by the seat of the customer and not by the place of installation.",
        "Shifts between regions are mostly due to single projects.",
        "Intra-group deliveries have been removed from the figures.",
        "The depots in the north benefited from the replacement of old booster stations.",
        "In the south, irrigation projects started later than in other years.",
        "Overseas business is handled by partners, and its timing follows the shipping schedules.",
        "The last column gives the assessment of the regional managers.",
        "Central European customers stayed cautious with new buildings and active in refurbishment.",
    ),
    "regions end": (
        "Sums may differ slightly because of rounding, and no region depends on a single customer. The regional managers discuss the figures each month with the planning desk, which adjusts the stock in the depots accordingly.",
        "The regional structure is unchanged. A customer that moves its seat is shown in the new region from the following year on, so that the figures of one year can be compared with each other.",
        "Because large projects are invoiced in stages, a region can look weak for some months and strong in the next. The assessment in the last column tries to look through this effect.",
    ),
    "earnings": (
        "Better use of {step} offset the increase in wages.",
        "Costs of {cost} were lower than a year ago.",
        "Provisions for warranty were kept at the level of earlier periods.",
        "The result includes expenses for the introduction of the new planning software.",
        "Engineering worked mainly on the next generation of {line}.",
        "Waste in {step} was reduced once more.",
        "One-off effects were small and largely canceled each other out.",
        "Margins in spare parts remained stable, and those in projects recovered.",
        "Development projects are reviewed every month, and two of them were stopped.",
        "Currency effects are shown separately in the notes.",
        "Freight charges could be passed on to customers only in part.",
    ),
    "cash": (
        "The largest single item was {machine}.",
        "Stocks of finished goods were reduced, while those of castings were deliberately increased.",
        "The credit line of the banking group remained unused.",
        "All covenants were met with a comfortable distance.",
        "Receivables were followed up more closely by the depots.",
        "An advance payment for {machine} is included in the figures.",
        "Leases for service vehicles are shown in the notes.",
        "Payments to suppliers were made on time, and early payment discounts were used.",
        "No acquisitions were made, and none is being negotiated.",
        "The pension plan is fully funded according to the latest report of the actuary.",
        "Loan repayments followed the agreed schedule.",
    ),
    "operations": (
        "The flow of material to {step} has been simplified.",
        "Changeovers take less time since tools are prepared outside the machine.",
        "Fitters and planners meet each morning at the board.",
        "Work in {step} was reorganized, with new routes for people and forklifts.",
        "Suppliers nearby deliver twice a day, which has freed space in the hall.",
        "The workshop received {machine}, which shortens the way of returned units.",
        "Rainwater is used for leak tests wherever quality allows it.",
        "An audit by a customer from {market} was passed without major findings.",
        "Service vans carry a revised stock of parts, chosen from real call records.",
    ),
    "people": (
        "New colleagues joined mainly in the depots and in {step}.",
        "The works council and the management board agreed on a new shift model.",
        "Several retiring foremen stay on as part-time mentors.",
        "Finding experienced fitters remains difficult in rural areas.",
        "The mentoring scheme for new team leads entered its second round.",
        "A survey among employees showed satisfaction with the team and criticism of meeting culture.",
        "The health program now includes physiotherapy at the plant.",
        "Turnover among office staff fell, and it was unchanged in production.",
        "Language courses are offered in the depots during working hours.",
        "No serious accident occurred.",
        "The canteen contract was renewed after a tasting in which everyone could vote.",
    ),
    "outlook": (
        "{E} expects stable demand in the coming months.",
        "Risks lie in the price of {cost} and in the pace of public tenders.",
        "Replacement business with {line} should grow faster than projects.",
        "The forecast made at the start of the year is confirmed.",
        "Larger acquisitions are not planned, smaller additions to service are possible.",
        "We will give priority to delivery reliability over additional volume.",
        "The pipeline supports the plan, although single awards may slip.",
        "New efficiency rules should bring replacement business over the next years.",
        "Wage agreements in the industry are open and may weigh on costs.",
        "The next report will be published after the review by the auditors.",
        "Much depends on whether investment by {market} picks up again.",
        "Statements about the future rest on assumptions that may prove wrong.",
    ),
}
