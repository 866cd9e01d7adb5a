# ruff: noqa: E501 (tables and prose, one entry a line)
"""How a specification is stated, asked for and shown in a table, and the prose of product notes.

Knows nothing of particular products.
"""

from typing import Any

SPECS: dict[str, dict[str, Any]] = {
    "flow": {
        "label": "Maximum flow rate", "remark": "at the open outlet", "names": ("maximum flow rate", "highest flow rate"), "words": ("flow rate",),
        "questions": ("How much water can the {e} move per hour at most?", "How many cubic meters per hour does the {e} deliver at most?"),
        "sentences": (
            "The {e} reaches a maximum flow rate of {v}.",
            "With clean water the maximum flow rate is {v}.",
            "At full speed the unit moves up to {v}.",
        ),
    },
    "min_flow": {
        "label": "Minimum flow", "remark": "continuous duty", "names": ("minimum continuous flow", "lowest permitted flow"), "words": ("minimum flow",),
        "questions": ("Below which flow must the {e} not run continuously?", "How much flow does the {e} need at least in continuous duty?"),
        "sentences": (
            "A minimum flow of {v} must be kept in continuous duty.",
            "In continuous duty the minimum flow is {v}, below which the housing heats up.",
        ),
    },
    "pressure": {
        "label": "Maximum pressure", "remark": "at the outlet", "names": ("maximum operating pressure", "highest operating pressure"), "words": ("operating pressure", "maximum pressure"),
        "questions": ("How much pressure can the {e} take at most?", "Up to how many bar may the {e} be operated?"),
        "sentences": (
            "The maximum operating pressure is {v}.",
            "The housing is rated for an operating pressure of {v}.",
            "An operating pressure of up to {v} is permitted for the {e}.",
        ),
    },
    "efficiency": {
        "label": "Hydraulic efficiency", "remark": "at the best point", "names": ("hydraulic efficiency", "peak hydraulic efficiency"), "words": ("efficiency",),
        "questions": ("How efficient is the {e} at its best point?", "How many percent hydraulic efficiency does the {e} reach?"),
        "sentences": (
            "At its best point the {e} works with a hydraulic efficiency of {v}.",
            "Hydraulic efficiency peaks at {v} in the middle of the curve.",
        ),
    },
    "solids": {
        "label": "Solids passage", "remark": "spherical", "names": ("solids passage", "largest permitted particle size"), "words": ("solids", "particles"),
        "questions": ("Which size of particles can pass the {e}?", "How large may solids be in the {e}?"),
        "sentences": (
            "Particles and solids of up to {v} pass without blocking the impeller.",
            "The free passage for solids measures {v}.",
        ),
    },
    "power": {
        "label": "Rated power", "remark": "continuous duty", "names": ("rated power", "rated motor power"), "words": ("rated power", "rated at"),
        "questions": ("How many kilowatts is the {e} rated at?", "How much power is the {e} rated for?"),
        "sentences": (
            "The {e} has a rated power of {v}.",
            "The {e} is rated at {v} and starts through a soft starter.",
            "A rated power of {v} covers every permitted operating point.",
        ),
    },
    "noise": {
        "label": "Noise level", "remark": "at one meter", "names": ("noise level", "sound pressure level"), "words": ("noise level", "sound pressure"),
        "questions": ("How loud is the {e}?", "How many decibels does the {e} produce?"),
        "sentences": (
            "At a distance of one meter the noise level is {v}.",
            "The noise level stays at {v} in normal operation.",
            "Measured on the test stand, the {e} has a sound pressure level of {v}.",
        ),
    },
    "ambient": {
        "label": "Maximum ambient temperature", "remark": "in the shade", "names": ("maximum ambient temperature", "highest permitted ambient temperature"), "words": ("ambient",),
        "questions": ("Up to which ambient temperature may the {e} be used?", "How warm may the surroundings of the {e} be?"),
        "sentences": (
            "The ambient temperature may rise to {v}.",
            "Operation is permitted up to an ambient temperature of {v}.",
        ),
    },
    "liquid": {
        "label": "Maximum liquid temperature", "remark": "continuous", "names": ("maximum liquid temperature", "highest permitted liquid temperature"), "words": ("liquid temperature", "liquids of up to"),
        "questions": ("How hot may the liquid in the {e} be?", "Up to which liquid temperature can the {e} be used?"),
        "sentences": (
            "The liquid temperature must not exceed {v}.",
            "The {e} handles liquids of up to {v}.",
            "A liquid temperature of {v} is the upper limit for the gaskets fitted as standard.",
        ),
    },
    "suction_temp": {
        "label": "Minimum liquid temperature", "remark": "frost limit", "names": ("minimum liquid temperature", "lowest permitted liquid temperature"), "words": ("minimum liquid temperature", "colder than", "minimum temperature"),
        "questions": ("How cold may the water in the {e} be?", "Down to which water temperature can the {e} be operated?"),
        "sentences": (
            "Water colder than {v} must not enter the unit.",
            "The minimum temperature of the water is {v}.",
        ),
    },
    "weight": {
        "label": "Weight", "remark": "dry, without accessories", "names": ("weight", "dry weight"), "words": ("weighs", "weight"),
        "questions": ("How heavy is the {e}?", "How much does the {e} weigh?"),
        "sentences": (
            "The complete unit weighs {v}.",
            "Ready for shipping, the {e} weighs {v}.",
            "The dry weight is {v}, accessories not included.",
        ),
    },
    "connection": {
        "label": "Outlet connection", "remark": "nominal diameter", "names": ("outlet connection diameter", "nominal diameter of the outlet"), "words": ("outlet connection", "nominal diameter"),
        "questions": ("Which nominal diameter does the outlet of the {e} have?", "How wide is the outlet connection of the {e}?"),
        "sentences": (
            "The outlet connection has a nominal diameter of {v}.",
            "At the far end, the outlet connection measures {v}.",
        ),
    },
    "length": {
        "label": "Overall length", "remark": "without cables", "names": ("overall length", "installed length"), "words": ("length",),
        "questions": ("How long is the {e}?", "How much length does the {e} take up?"),
        "sentences": (
            "The overall length is {v}, measured from end to end.",
            "Plan for an overall length of {v} without cables.",
        ),
    },
    "crew": {
        "label": "Installation crew", "remark": "with a hoist", "names": ("number of people needed for installation", "required installation crew"), "words": ("people", "crew"),
        "questions": ("How many people are needed to install the {e}?", "How large a crew does the installation of the {e} take?"),
        "sentences": (
            "Installation takes a crew of {v} with a hoist.",
            "For the installation {v} are needed on site.",
        ),
    },
    "service": {
        "label": "Service interval", "remark": "normal duty", "names": ("service interval", "interval between services"), "words": ("service interval", "is serviced"),
        "questions": ("After how many hours is the {e} due for service?", "How often does the {e} need a service?"),
        "sentences": (
            "The service interval is {v} under normal duty.",
            "The {e} is serviced every {v}.",
            "A service interval of {v} applies, provided that the water is free of sand.",
        ),
    },
    "seal": {
        "label": "Seal life", "remark": "expected", "names": ("expected seal life", "expected life of the shaft seal"), "words": ("seal is expected", "seal life"),
        "questions": ("How long does the shaft seal of the {e} last?", "How many hours does the seal of the {e} live?"),
        "sentences": (
            "The shaft seal is expected to last {v}.",
            "Seal life is put at {v} in clean water.",
        ),
    },
    "overhaul": {
        "label": "Overhaul interval", "remark": "in the workshop", "names": ("overhaul interval", "interval for a general overhaul"), "words": ("overhaul",),
        "questions": ("After how many years does the {e} need an overhaul?", "How often is the {e} overhauled?"),
        "sentences": (
            "A general overhaul in the workshop is due after {v}.",
            "The {e} goes to the workshop for an overhaul every {v}.",
        ),
    },
    "oil": {
        "label": "Oil change interval", "remark": "oil chamber", "names": ("oil change interval", "interval between oil changes"), "words": ("oil is changed", "oil change"),
        "questions": ("How often is the oil of the {e} changed?", "After how many years does the {e} need new oil?"),
        "sentences": (
            "The oil is changed after {v} even if it still looks clear.",
            "An oil change is due every {v}.",
        ),
    },
    "warranty": {
        "label": "Warranty", "remark": "from commissioning", "names": ("warranty", "warranty period"), "words": ("warranty of", "warranty on", "warranty runs"),
        "questions": ("How long is the warranty on the {e}?", "How many months of warranty come with the {e}?"),
        "sentences": (
            "We grant a warranty of {v} from commissioning.",
            "The warranty on the {e} is {v}.",
            "The warranty runs for {v} and presumes that the log book has been kept.",
        ),
    },
    "storage": {
        "label": "Storage time", "remark": "in original packing", "names": ("maximum storage time", "longest storage time before use"), "words": ("stored", "storage time"),
        "questions": ("How long may the {e} be stored before use?", "For how many months can the {e} be kept in storage?"),
        "sentences": (
            "In its original packing the unit may be stored for {v}.",
            "The storage time must not be longer than {v} without a new test.",
        ),
    },
    "parts": {
        "label": "Spare part supply", "remark": "after end of production", "names": ("guaranteed spare part supply", "period of guaranteed spare part supply"), "words": ("spare parts are available", "supply of spare parts"),
        "questions": ("For how many years are spare parts for the {e} available?", "How long does Tarnholm supply spare parts for the {e}?"),
        "sentences": (
            "Spare parts are available for {v} after the end of production.",
            "We guarantee the supply of spare parts for {v}.",
        ),
    },
    "life": {
        "label": "Design life", "remark": "metal parts", "names": ("design life", "expected service life"), "words": ("design life", "designed for a life"),
        "questions": ("For how many years is the {e} designed?", "How long is the {e} meant to last?"),
        "sentences": (
            "The design life of the metal parts is {v}.",
            "All load-bearing parts are designed for a life of {v}.",
        ),
    },
}  # fmt: skip

BACKGROUND: dict[str, dict[str, tuple[str, ...]]] = {
    "Overview": {
        "any": (
            "The {e} replaces an older series and fits the same foundations, so that a change takes a day rather than a week.",
            "Operators asked for fewer tools, and the new housing opens with a single size of key.",
            "The {e} can be connected to the plant control or run on its own.",
            "The first units went to a waterworks that agreed to share its log books with us.",
            "Every {e} leaves the plant with a signed test sheet and a spare key for the terminal box.",
            "The design was simplified step by step together with the fitters who look after it.",
            "The {e} is usually sold with a control cabinet, although many customers use their own.",
            "Paint, cable length and language of the manual are chosen with the order.",
        ),
        "dry": (
            "The wet parts are cast in our own foundry cell and machined in one clamping.",
            "Motor and hydraulic part share one base plate and are aligned in the plant.",
            "A sister model exists for sea water and is described in a note of its own.",
        ),
        "wet": (
            "Motor and hydraulic part form one sealed unit that works below the water line.",
            "The sealed motor is tested under water before it leaves the plant.",
            "Pulling and refitting take little time because the cable plugs in at the top.",
        ),
        "unit": (
            "The {type} arrives fully piped and wired on a frame.",
            "The {type} was developed with small waterworks in mind, where nobody is on duty at night.",
            "A display at the front shows the state of the unit in plain words.",
        ),
    },
    "Hydraulic performance": {
        "any": (
            "All figures were measured with cold, clean water and apply to the standard version.",
            "A flow meter should be fitted if the operating point is not known.",
            "The selection program shows the data together with the tolerance band.",
            "Air in the line upsets every reading, so the pipe should rise steadily.",
            "For unusual duties the application desk calculates the operating point free of charge.",
        ),
        "dry": (
            "The curve is flat, which keeps the pressure steady when many taps are opened at once.",
            "Trimmed impellers are available for plants that need less head.",
            "Running far to the right of the curve shortens the life of the bearings.",
            "In parallel operation the check valves have to be of the same type.",
            "Cavitation is heard as a rattle, and the cause is nearly always a blocked strainer.",
        ),
        "wet": (
            "The curve is steep, so that a falling water level changes the output only a little.",
            "Trimmed impellers are available for plants that need less head.",
            "The water level must stay above the mark on the housing while the pump is running.",
            "Long risers need a check valve at the top as well as at the pump.",
        ),
        "unit": (
            "Valves at both ends allow the unit to be taken out of the line without draining it.",
            "A pressure relief valve belongs in the line and is not part of the supply.",
            "Two units can be run side by side where demand changes with the season.",
            "A sampling tap before and after the unit makes checks easy.",
        ),
    },
    "Drive and noise": {
        "any": (
            "Cables are led in from below, where they stay out of the way of the fitter.",
            "The terminal box can be turned in four directions.",
            "Supply voltage and frequency are chosen with the order.",
            "A residual current device has to be provided on site.",
        ),
        "dry": (
            "The motor can be exchanged without opening the hydraulic part.",
            "A temperature sensor in the winding switches the unit off before damage is done.",
            "The fan cover needs a hand's width of free space behind it.",
            "Rubber feet are supplied for rooms next to living space.",
            "Replacement motors of other makes fit if the flange and the shaft agree.",
        ),
        "wet": (
            "The surrounding water cools the motor, so it must not run dry for long.",
            "A moisture sensor reports a leaking seal before water reaches the winding.",
            "Starts in quick succession heat the winding and are counted by the control.",
            "The cable is cast into the plug and cannot wick water into the motor.",
        ),
        "unit": (
            "The electronics sit in a housing of their own, away from splashing water.",
            "After a power cut the unit starts again by itself and notes the event.",
            "A dry contact passes alarms on to the plant control.",
            "The display can be moved to the wall with a longer cable.",
        ),
    },
    "Liquids and temperature": {
        "any": (
            "If the medium changes, ask the application desk for a new check.",
            "Short peaks are harmless as long as the alarm stays quiet.",
            "A resistance list for common chemicals is part of the manual.",
            "Before a long stop in winter the housing is drained through the lower plug.",
            "Sea water is not allowed because the metal parts are not made for it.",
        ),
        "dry": (
            "Suitable liquids are drinking water, process water and mild cleaning solutions.",
            "Abrasive or oily liquids need the special seal, which is ordered separately.",
        ),
        "wet": (
            "Fibers and rags are to be expected in some networks, and the inlet has been shaped for them.",
            "Sand wears the hydraulic part, so a new well should be pumped clear with another pump first.",
        ),
        "unit": (
            "The materials in contact with water are approved for drinking water in all our home markets.",
            "Turbid water should pass a strainer before it enters the unit.",
        ),
    },
    "Dimensions and installation": {
        "any": (
            "Eye bolts mark the points at which the unit may be lifted.",
            "The drawing with all hole patterns is enclosed and can be downloaded as well.",
            "Transport locks are painted red and come off before the first start.",
            "Access for a small hand truck is sufficient in most buildings.",
            "The nameplate should stay readable once everything has been connected.",
        ),
        "dry": (
            "The foundation must be level, dry and firm enough not to hum.",
            "Pipes are supported on their own brackets so that they do not pull at the flanges.",
            "Leave room on the motor side for pulling the rotor.",
            "After filling, the unit is vented at the upper plug until no more air comes out.",
            "Direction of rotation is checked with a short push of the button.",
        ),
        "wet": (
            "The pump is lowered on a chain or riser and never on its cable.",
            "A mark on the cable shows how deep the unit hangs.",
            "Direction of rotation is checked by the twitch of the pump before it is lowered.",
        ),
        "unit": (
            "The frame stands on four feet that are leveled with a wrench.",
            "Keep the door side free so that cartridges and lamps can be pulled straight out.",
            "Pipe ends are closed with caps, which are removed only when the line is ready.",
        ),
    },
    "Operation and maintenance": {
        "any": (
            "Daily care is limited to looking, listening and writing down the readings.",
            "The manual shows each step with photographs taken in a real plant.",
            "A log book is enclosed and helps with any later question about a claim.",
            "Service kits hold all gaskets, so nobody has to hunt for a missing ring.",
            "The unit must be free of pressure and locked before a cover is removed.",
            "Our depots offer training for fitters on the machine itself.",
        ),
        "dry": (
            "Bearings are greased for life and are replaced as a pair.",
            "Vibration is best recorded at the two marked points, always with the same instrument.",
            "An unusual sound is a reason to stop and look, never a reason to turn up the speed.",
        ),
        "wet": (
            "A rising motor current often means that something is caught in the inlet.",
            "The insulation of the motor cable is measured whenever the pump is out of the water.",
            "Rinse the unit before work begins, and wear gloves in sewage.",
        ),
        "unit": (
            "The display reminds the operator of the next task and keeps a list of those done.",
            "Parts that are due for exchange can be replaced without special tools.",
            "Water quality is checked by the operator at the intervals which the authority has set.",
        ),
    },
    "Warranty, storage and spare parts": {
        "any": (
            "Claims are sent to the depot with the serial number and a photograph.",
            "Wear parts and damage by frost or dry running are excluded.",
            "The store must be dry and free of vibration.",
            "Spare part numbers are printed in the manual and engraved on larger parts.",
            "Used units can be returned to us, and the metal goes back to the foundry.",
            "Opening the sealed electronics ends our responsibility for them.",
            "Packing material is taken back at any depot.",
        ),
        "dry": ("Turn the shaft by hand once a month while the unit waits for use.",),
        "wet": ("Cable ends are kept closed with a cap so that no damp air creeps in.",),
        "unit": ("Lamps, sensors and chemicals age on the shelf and are ordered when they are needed.",),
    },
}

APPLICATIONS: dict[str, tuple[str, ...]] = {
    "dry": ("pressure boosting in buildings", "cooling and heating circuits", "irrigation", "fire mains with a separate release", "washing and rinsing lines",
            "transfer between tanks", "air handling plants"),
    "wet": ("pumping stations of public networks", "wells and tanks", "drainage of basements and pits", "emptying of basins", "rainwater storage",
            "temporary use on construction sites"),
    "unit": ("small waterworks", "private wells of farms and hotels", "beverage plants", "swimming pools", "hospitals and care homes", "process water in the food industry"),
}  # fmt: skip

SHEET = (
    "The table lists further data of the {e}; values apply to the standard version.",
    "Further data of the standard version is given below.",
    "The following values complete the description of the {e}.",
)
SHEET_END = (
    "Subject to technical change; the sheet delivered with the machine is binding. Figures for special versions are given in the order confirmation, and older editions of this note are no longer valid.",
    "Tolerances follow the usual standard for machines of this type. If a value matters for the layout of a plant, ask for the test sheet of the individual machine, which shows what was measured.",
    "Values for special versions differ and are stated on the nameplate. The drawing number on the nameplate leads to the matching set of documents in the download area.",
)
ROWS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "any": (
        ("Color", "signal blue", "other colors on request"),
        ("Protection class", "IP55", "terminal box"),
        ("Manual", "nine languages", "printed or as a file"),
        ("Mounting", "upright", "other positions on request"),
    ),
    "dry": (
        ("Casing material", "grey iron", "coated inside"),
        ("Shaft material", "stainless steel", "duplex on request"),
        ("Direction of rotation", "clockwise", "seen from the drive"),
    ),
    "wet": (
        ("Casing material", "stainless steel", "pickled"),
        ("Seal material", "silicon carbide", "both faces"),
        ("Cable", "plug-in", "longer lengths on request"),
    ),
    "unit": (
        ("Frame", "stainless steel", "adjustable feet"),
        ("Display", "text, six languages", "with alarm contact"),
        ("Data port", "plant bus", "optional"),
    ),
}
