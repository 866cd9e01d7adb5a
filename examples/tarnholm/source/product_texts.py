"""How a specification is stated, asked for and shown in a table, and the prose of product notes.

Knows nothing of particular products.
"""

from typing import Any

SPECS: dict[str, dict[str, Any]] = {
    "flow": {
        "label": "Maximum flow rate", "remark": "at the open discharge", "names": ("maximum flow rate", "highest flow rate"), "words": ("flow rate",),
        "questions": ("How much water can the {e} move per hour at most?", "How many cubic metres per hour does the {e} deliver at most?"),
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
            "In continuous duty the minimum flow is {v}, below which the casing heats up.",
        ),
    },
    "pressure": {
        "label": "Maximum pressure", "remark": "at the discharge flange", "names": ("maximum operating pressure", "highest operating pressure"), "words": ("operating pressure", "maximum pressure"),
        "questions": ("How much pressure can the {e} take at most?", "Up to how many bar may the {e} be operated?"),
        "sentences": (
            "Its maximum operating pressure is {v}.",
            "The casing is rated for an operating pressure of {v}.",
            "An operating pressure of up to {v} is permitted for the {e}.",
        ),
    },
    "efficiency": {
        "label": "Hydraulic efficiency", "remark": "at the best point", "names": ("hydraulic efficiency", "peak hydraulic efficiency"), "words": ("efficiency",),
        "questions": ("How efficient is the {e} at its best point?", "How many percent hydraulic efficiency does the {e} reach?"),
        "sentences": (
            "At its best point the pump works with a hydraulic efficiency of {v}.",
            "Hydraulic efficiency peaks at {v} in the middle of the curve.",
        ),
    },
    "solids": {
        "label": "Solids passage", "remark": "spherical", "names": ("solids passage", "largest particle size that passes"), "words": ("solids", "particles"),
        "questions": ("Which size of particles can pass the {e}?", "How large may solids be in the {e}?"),
        "sentences": (
            "Particles and solids of up to {v} pass without blocking the impeller.",
            "The free passage for solids measures {v}.",
        ),
    },
    "power": {
        "label": "Rated power", "remark": "at the motor shaft", "names": ("rated power", "rated motor power"), "words": ("rated power", "rated at"),
        "questions": ("How many kilowatts is the {e} rated at?", "How powerful is the drive of the {e}?"),
        "sentences": (
            "The drive has a rated power of {v}.",
            "Its motor is rated at {v} and starts through a frequency converter.",
            "A rated power of {v} covers the whole curve without overload.",
        ),
    },
    "noise": {
        "label": "Noise level", "remark": "at one metre", "names": ("noise level", "sound pressure level"), "words": ("noise level", "sound pressure"),
        "questions": ("How loud is the {e}?", "How many decibels does the {e} produce?"),
        "sentences": (
            "At a distance of one metre the noise level is {v}.",
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
            "A liquid temperature of {v} is the upper limit for the seals fitted as standard.",
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
        "label": "Weight", "remark": "dry, with base plate", "names": ("weight", "dry weight"), "words": ("weighs", "weight"),
        "questions": ("How heavy is the {e}?", "How much does the {e} weigh?"),
        "sentences": (
            "The complete unit weighs {v}.",
            "With base plate and coupling guard the {e} weighs {v}.",
            "Its dry weight is {v}, so lifting gear must be on hand.",
        ),
    },
    "connection": {
        "label": "Discharge connection", "remark": "nominal diameter", "names": ("discharge connection diameter", "nominal diameter of the discharge"), "words": ("discharge connection", "nominal diameter"),
        "questions": ("Which nominal diameter does the discharge of the {e} have?", "How wide is the discharge connection of the {e}?"),
        "sentences": (
            "The discharge connection has a nominal diameter of {v}.",
            "On the pressure side, the discharge connection measures {v}.",
        ),
    },
    "length": {
        "label": "Overall length", "remark": "without cables", "names": ("overall length", "installed length"), "words": ("length",),
        "questions": ("How long is the {e}?", "How much length does the {e} take up?"),
        "sentences": (
            "The overall length is {v}, measured over the flanges.",
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
        "label": "Design life", "remark": "casing and shaft", "names": ("design life", "expected service life"), "words": ("design life", "designed for a life"),
        "questions": ("For how many years is the {e} designed?", "How long is the {e} meant to last?"),
        "sentences": (
            "The design life of casing and shaft is {v}.",
            "Casing and shaft are designed for a life of {v}.",
        ),
    },
}  # fmt: skip

BACKGROUND: dict[str, Any] = {
    "Overview": (
        "It replaces an older series and fits the same foundations, so that a change takes a day rather than a week.",
        "The wet parts are cast in our own foundry cell and machined in one clamping.",
        "Operators asked for fewer tools, and the new housing opens with a single size of key.",
        "The {e} can be connected to the plant control or run on its own.",
        "A sister model exists for sea water and is described in a note of its own.",
        "The first units went to a waterworks that agreed to share its log books with us.",
        "Every {e} leaves the plant with a signed test sheet and a spare key for the terminal box.",
        "The design was simplified step by step together with the fitters who look after it.",
        "It is usually sold with a control cabinet, although many customers use their own.",
        "Paint, cable length and language of the manual are chosen with the order.",
    ),
    "Hydraulic performance": (
        "The curve is flat, which keeps the pressure steady when many taps are opened at once.",
        "All figures were measured with cold, clean water and apply to the standard impeller.",
        "Trimmed impellers are available for plants that need less head.",
        "A flow meter should be fitted if the operating point is not known.",
        "Running far to the right of the curve shortens the life of the bearings.",
        "In parallel operation the check valves have to be of the same type.",
        "The hydraulic parts were laid out with the aim of quiet inflow and few eddies.",
        "Cavitation is heard as a rattle, and the cause is nearly always a blocked strainer.",
        "The selection program shows the curve together with the tolerance band.",
    ),
    "Drive and noise": (
        "The motor can be exchanged without opening the hydraulic part.",
        "A temperature sensor in the winding switches the unit off before damage is done.",
        "Cables are led in from below, where they stay out of the way of the fitter.",
        "The fan cover needs a hand's width of free space behind it.",
        "Speed is set by the converter, and the ramp should not be shortened.",
        "Rubber feet are supplied for rooms next to living space.",
        "The terminal box can be turned in four directions.",
        "Replacement motors of other makes fit if the flange and the shaft agree.",
    ),
    "Liquids and temperature": (
        "Suitable liquids are drinking water, process water and mild cleaning solutions.",
        "Abrasive or oily liquids need the special seal, which is ordered separately.",
        "Sea water is not allowed because the shaft is not made for it.",
        "Before a long stop in winter the casing is drained through the lower plug.",
        "If the medium changes, ask the application desk for a new check.",
        "The materials in contact with water are approved for drinking water in all our home markets.",
        "Short peaks are harmless as long as the alarm stays quiet.",
        "A resistance list for common chemicals is part of the manual.",
    ),
    "Dimensions and installation": (
        "The foundation must be level, dry and firm enough not to hum.",
        "Pipes are supported on their own brackets so that they do not pull at the flanges.",
        "Leave room on the motor side for pulling the rotor.",
        "Eye bolts mark the points at which the unit may be lifted.",
        "The drawing with all hole patterns is enclosed and can be downloaded as well.",
        "Transport locks are painted red and come off before the first start.",
        "After filling, the unit is vented at the upper plug until no more air comes out.",
        "Direction of rotation is checked with a short push of the button.",
    ),
    "Operation and maintenance": (
        "Daily care is limited to looking, listening and writing down the pressure.",
        "The manual shows each step with photographs taken in a real plant.",
        "A log book is enclosed and helps with any later question about a claim.",
        "Service kits hold all gaskets, so nobody has to hunt for a missing ring.",
        "The unit must be free of pressure and locked before a cover is removed.",
        "Bearings are greased for life and are replaced as a pair.",
        "Our depots offer training for fitters on the machine itself.",
        "Vibration is best recorded at the two marked points, always with the same instrument.",
        "An unusual sound is a reason to stop and look, never a reason to turn up the speed.",
    ),
    "Warranty, storage and spare parts": (
        "Claims are sent to the depot with the serial number and a photograph.",
        "Wear parts and damage by frost or dry running are excluded.",
        "The store must be dry and free of vibration.",
        "Turn the shaft by hand once a month while the unit waits for use.",
        "Spare part numbers are printed in the manual and engraved on larger parts.",
        "Used units can be returned to us, and the metal goes back to the foundry.",
        "Opening the sealed electronics ends our responsibility for them.",
        "Packing material is taken back at any depot.",
    ),
    "sheet": (
        "The table lists further data of the {e}; values apply to the standard version.",
        "Further data of the standard version is given below.",
        "The following values complete the description of the {e}.",
    ),
    "sheet_end": (
        "Subject to technical change; the sheet delivered with the machine is binding. Figures for special versions are given in the order confirmation, and older editions of this note are no longer valid.",
        "Tolerances follow the usual standard for rotodynamic machines. If a value matters for the layout of a plant, ask for the test sheet of the individual machine, which shows what was measured.",
        "Values for versions with special impellers differ and are stated on the nameplate. The drawing number on the nameplate leads to the matching set of documents in the download area.",
    ),
    "rows": (
        ("Color", "signal blue", "other colors on request"),
        ("Protection class", "IP55", "terminal box"),
        ("Casing material", "grey iron", "coated inside"),
        ("Shaft material", "stainless steel", "duplex on request"),
        ("Direction of rotation", "clockwise", "seen from the drive"),
        ("Manual", "nine languages", "printed or as a file"),
        ("Seal material", "silicon carbide", "both faces"),
        ("Mounting", "horizontal", "vertical on request"),
    ),
}
