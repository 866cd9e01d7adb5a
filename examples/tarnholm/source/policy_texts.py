# ruff: noqa: E501 (tables and prose, one entry a line)
"""The policy texts themselves: one entry a document, in the markup described in `policies.py`.

Knows nothing of how they are turned into files.
"""

TRAVEL = """
## Purpose and scope
This policy covers every business trip made on behalf of Tarnholm Hydraulics, by employees, apprentices and contractors alike.
It replaces the regional rules that were in force in the service depots.
The aim is to travel safely, sensibly and at a cost we would defend in front of a customer.
* 14 days | advance booking time for flights | how many days ahead must flights be booked :: Flights are booked no later than 14 days before departure unless a breakdown call makes this impossible.
Where a video call does the job, the trip is not made at all.

## Transport
Rail is the first choice wherever it reaches the destination on the same day.
* 5 hours | rail travel time up to which flying is not allowed | up to how many hours of rail travel is flying ruled out :: Flying is not permitted where the rail journey takes less than 5 hours door to door.
* 6 hours | flight duration from which premium economy may be booked | from how many hours of flight may travelers book premium economy :: Premium economy may be booked on flights that last longer than 6 hours.
Business class needs the written consent of the Head of Finance before the ticket is issued.
Private cars are used only when neither a pool car nor a train is available, and the log sheet is attached to the claim.

## Hotels and meals
Hotels are booked through the travel desk, which holds corporate rates in most cities where we have depots.
* 145 EUR | hotel limit per night | how much may a hotel room cost per night :: The limit for a hotel room is EUR 145 per night including breakfast.
Where a trade fair drives rates up, the travel desk may approve a higher price for that city and notes the reason.
* 48 EUR | daily meal allowance in the home country | how much is the daily meal allowance in the home country :: In the home country the meal allowance is EUR 48 for each full day.
* 66 EUR | daily meal allowance abroad | how much may be spent on meals per day abroad :: Abroad, travelers may claim a meal allowance of EUR 66 for each full day.
Alcohol is a private expense, also at customer dinners hosted by us.

## Claims
Claims are entered in the expense tool with a photograph of every receipt.
* 30 days | deadline for expense claims | how long do travelers have to submit expense claims :: Expense claims must reach the finance desk within 30 days of the end of the trip.
* 25 EUR | amount up to which no receipt is needed | up to which amount is no receipt needed :: Single expenses below EUR 25 may be claimed without a receipt.
* 10 days | reimbursement time | how quickly are approved claims paid :: Approved claims are paid out within 10 days.
Late claims are still examined, but the cost center carries them only if the line manager explains the delay.

## Safety abroad
Travelers register every journey outside Europe with the security desk and carry the emergency card.
* 3 weeks | lead time for travel risk assessments | how many weeks before departure is the risk assessment needed :: A travel risk assessment is completed 3 weeks before departure to any country on the watch list.
The Head of Security can stop a trip at short notice, and nobody is asked to travel against their own judgment.
! What daily car rental limit does the business travel policy set? | rental
! How many days of paid rest after a long-haul flight does the business travel policy grant? | rest day
! What mileage rate per kilometer does the business travel policy pay for private cars? | mileage, kilomet
"""

LEAVE = """
## Who this policy is for
The policy applies to all employees of the group, whether they work in the plant, in a depot or at a desk.
Local law comes first wherever it is more generous than the text below.
* 28 days | annual leave for full-time employees | how many days of annual leave do full-time employees have :: Full-time employees are entitled to 28 days of annual leave.
Part-time employees receive the same entitlement in proportion to their contracted hours.
Leave is meant to be taken, and managers plan the work so that it can be.

## Planning and carrying over
Teams agree on the main leave periods in the first quarter so that the depots stay staffed in the summer months.
* 6 weeks | notice for leave longer than one week | how many weeks before must longer leave be requested :: Leave of more than one week is requested at least 6 weeks in advance.
* 5 days | leave that may be carried over | how many unused leave days may be carried over :: No more than 5 days of unused leave may be carried over into the following year.
Carried-over leave that is not used by the end of March lapses, except after long illness.
* 10 days | minimum unbroken leave block | how many days must the longest leave block have :: One leave block in each year has to last at least 10 days without a break.
The reason is simple: people who never switch off make mistakes, and other people cannot step in for work they have never seen.

## Family
Parents, adoptive parents and foster parents are treated alike.
* 16 weeks | paid parental leave | how many weeks of paid parental leave are there :: The company grants 16 weeks of paid parental leave for each child.
* 80 percent | pay during parental leave | which share of salary is paid during parental leave :: During parental leave the employee continues to receive 80 percent of base salary.
* 8 days | child sickness leave | how many days off are granted to care for a sick child :: To care for a sick child, a parent may take up to 8 days of paid absence a year.
Requests are made to the HR desk, which replies in writing and arranges cover with the line manager.

## Special occasions
Some events in life need time, and nobody should have to spend holiday on them.
* 2 days | special leave for moving house | how many days off does an employee get for moving house :: Moving house gives a right to 2 days of special leave.
* 4 days | bereavement leave | how many days of leave follow a death in the family :: After a death in the close family, 4 days of bereavement leave are granted without further questions.
* 12 months | maximum length of a sabbatical | how long may a sabbatical last :: An unpaid sabbatical may last up to 12 months and is agreed in writing.
The position is kept open or a comparable one is offered on return.

## Illness
Anyone who is ill tells the line manager before the shift starts, by phone or message.
* 3 days | sick time without a doctor's note | for how many days of illness is no doctor's note needed :: A doctor's note is needed only when an illness lasts longer than 3 days.
After a long absence the company doctor and the line manager agree on a gradual return to work.
! How many days of paid volunteering does the leave policy offer? | volunteer
! How many days of leave does the leave policy grant for a wedding? | wedding, marriage
! What is the extra leave for shift workers under the leave policy? | shift worker, shift work
"""

WARRANTY = """
## Purpose
This policy tells service coordinators how to handle warranty and return requests in a fair and uniform way.
It does not change what a contract promises; where a contract says more, the contract wins.
* 24 months | standard warranty period for pumps | how long is the standard warranty on pumps :: For pumps sold without a special agreement the standard warranty period is 24 months from delivery.
* 6 months | warranty on exchanged spare parts | how long is the warranty on exchanged spare parts :: Spare parts fitted by our own technicians carry a warranty of 6 months.
Wear parts such as seals and impellers in abrasive water are excluded unless they fail through a defect in material.

## Receiving a claim
A claim is opened in the service system with the serial number, the hours run and a photograph of the nameplate.
* 2 days | time to acknowledge a claim | how quickly must a claim be acknowledged :: The coordinator acknowledges every warranty claim within 2 days.
* 15 days | time for the technical decision | how many days may the technical decision take :: A technical decision is given to the customer no later than 15 days after the part has arrived.
If the cause stays unclear, we decide in favor of the customer and note the case for the quality meeting.
Claims are never rejected by telephone; the reason is always given in writing and names the clause it rests on.

## Returns of unused goods
Unused goods in original packaging may be returned after agreement with the order desk.
* 45 days | return window for unused goods | within how many days may unused goods be returned :: Unused goods are taken back within 45 days of the invoice date.
* 15 percent | restocking fee | which share of the price is kept as a restocking fee :: A restocking fee of 15 percent of the net price is deducted from the credit note.
* 120 EUR | value below which returns are not accepted | below which value are returns not accepted :: Returns with a goods value below EUR 120 are not accepted because handling costs more than the parts.
Special designs and cut cables cannot be returned.

## Goodwill
Goodwill is a decision, not a right, and it is recorded as such.
* 2,500 EUR | goodwill limit for depot managers | up to which amount may depot managers decide on goodwill :: Depot managers may grant goodwill of up to EUR 2,500 for each case.
* 18 months | goodwill period after warranty | how long after the warranty may goodwill be considered :: Goodwill is considered only within 18 months after the warranty has ended.
Anything above that goes to the Head of Service with a short note on the history of the customer and the machine.

## Learning from claims
Every month the quality circle reads the claims of the past period and looks for patterns.
* 5 years | retention of failed parts reports | how long are reports on failed parts kept :: Reports on failed parts are kept for 5 years.
* 90 days | storage time for returned parts | how long are returned parts stored :: Returned parts are stored for 90 days so that a customer can ask for a second look.
Patterns that point to design are handed to engineering together with the parts.
! What is the warranty extension fee under the warranty and returns policy? | extension
! How many hours of free labor does the warranty and returns policy include? | free labor, labour
! Which share of freight costs does the warranty and returns policy refund? | freight
"""

RETENTION = """
## Why we limit retention
Data that is no longer needed is a cost and a risk, and some of it belongs to people who trusted us with it.
This policy states how long each class of records is kept and who deletes it.
* 10 years | retention of accounting records | how long are accounting records kept :: Accounting records and invoices are kept for 10 years.
* 7 years | retention of customer contracts after they end | how long are customer contracts kept after they end :: Customer contracts are kept for 7 years after the contract has ended.
The record owner named in the register decides in cases of doubt.

## Personnel and applicants
Personnel files are held by the HR desk in a restricted area of the document store.
* 36 months | retention of personnel files after leaving | how long are personnel files kept after someone leaves :: Personnel files are deleted 36 months after the person has left the company.
* 180 days | retention of applications | how long are rejected applications kept :: Applications that did not lead to employment are erased after 180 days.
Medical notes of the company doctor are never stored in the personnel file.
Managers do not keep private copies of appraisals, and the HR desk reminds them of this every autumn.

## Technical and operational data
Plants connected to remote monitoring send pressure, flow and vibration values around the clock.
* 25 months | retention of remote monitoring data | how long is remote monitoring data kept :: Remote monitoring data is kept for 25 months so that two seasons can be compared.
* 60 days | retention of access logs | for how many days are access logs kept :: Access logs of the production network are stored for 60 days.
* 72 hours | retention of camera recordings | after how many hours are camera recordings overwritten :: Camera recordings at the gates are overwritten after 72 hours.
Where an incident is being examined, the Head of Security may order a hold, which is noted in the register.

## Backups
Backups follow the same limits as the data they copy, with some delay.
* 35 days | delay until deleted data leaves backups | how many days does deleted data stay in backups :: Deleted data leaves the backups no later than 35 days after deletion.
* 4 weeks | interval of restore tests | how often are restores tested :: A restore is tested every 4 weeks on a separate machine.
Backup media that leave the building are encrypted and travel with a signed note.

## Requests from individuals
Anyone may ask which data we hold about them and request that it be corrected or erased.
* 21 days | response time for information requests | how long may the answer to an information request take :: Information requests are answered within 21 days.
The data protection coordinator keeps a list of requests, and reports the number to the works council once a year.
! How long does the data retention policy keep emails? | email, e-mail, mailbox
! How long are visitor lists kept under the data retention policy? | visitor
! For how long does the data retention policy store engineering drawings? | drawing
"""

SECURITY = """
## Principles
Information security protects our customers' plants as much as our own books.
The policy is short on purpose: every rule in it is checked.
Everyone is expected to report what looks odd, and nobody is blamed for a false alarm.

## Accounts and passwords
Accounts are personal and are never shared, not even inside a shift team.
* 12 months | password lifetime | after how many months must passwords be changed :: Passwords are changed at least every 12 months.
* 8 hours | session lifetime for remote access | after how many hours does a remote session end :: Remote sessions end automatically after 8 hours.
* 24 hours | deadline for blocking accounts of leavers | within how many hours are the accounts of leavers blocked :: Accounts of people who leave the company are blocked within 24 hours.
A second factor is required for every login from outside the plant network.
Administrators use a separate account for administration and read no messages with it.

## Devices and updates
Laptops and tablets are encrypted, and the depot keeps no unencrypted sticks.
* 9 days | deadline for critical updates | within how many days must critical updates be installed :: Critical updates are installed within 9 days of their release.
* 40 days | deadline for other security updates | how many days may ordinary security updates take :: All other security updates are in place after 40 days at the latest.
* 5 years | maximum age of laptops | after how many years are laptops replaced :: Laptops are replaced after 5 years at the latest because older models receive no firmware.
Control systems in the plant follow the maintenance windows agreed with production.

## Incidents
The incident line is staffed around the clock and its number is printed on every badge.
* 2 hours | time to report an incident | within how many hours must a suspected incident be reported :: A suspected incident is reported to the incident line within 2 hours.
* 72 hours | time to inform affected customers | how soon are affected customers informed of an incident :: Affected customers are informed no later than 72 hours after an incident has been confirmed.
* 20 days | deadline for the incident review | by when must the incident review be finished :: A written review of each incident is finished within 20 days.
The review names causes and measures, and it does not name culprits.

## Awareness and suppliers
New colleagues take the security course in their first month, before they receive access to drawings.
* 95 percent | target share of staff with a current security course | which share of staff must hold a current security course :: At any time at least 95 percent of staff must hold a current security course.
* 3 years | interval of supplier security reviews | how often are suppliers with network access reviewed :: Suppliers with access to our network are reviewed every 3 years.
Results are shared with the purchasing desk, which takes them into account when contracts are renewed.
! What minimum password length does the information security policy require? | length, characters
! What fine does the information security policy provide for lost badges? | fine, lost badge
! How often is a penetration test carried out under the information security policy? | penetration
"""

QUALITY = """
## Commitment
Our pumps run where people depend on them, in hospitals, waterworks and fire mains.
Quality is therefore the duty of whoever holds the part in hand, not of a department.
* 98 percent | first-pass yield target | what is the target for the first-pass yield :: The target for the first-pass yield in final assembly is 98 percent.
* 1.5 percent | tolerated scrap rate in machining | which scrap rate is tolerated in machining :: In machining a scrap rate of 1.5 percent is tolerated before the line lead must act.
Targets are reviewed each autumn by the Head of Quality together with the works council.

## Incoming goods
Castings, motors and electronics are inspected before they enter the warehouse.
* 5 percent | sample size for incoming castings | which share of incoming castings is inspected :: From every delivery of castings 5 percent are measured on the coordinate bench.
* 4 days | maximum time in incoming inspection | how many days may goods stay in incoming inspection :: Goods stay in incoming inspection for no longer than 4 days.
Deliveries from new suppliers are inspected in full until three lots in a row have passed.
Rejected goods are labeled red and moved to the locked area the same day.

## Testing
Each pump leaves the plant with a signed test sheet, and the sheet travels with it to the customer.
* 4 hours | length of the endurance test for large pumps | how long does the endurance test of large pumps take :: Large pumps pass an endurance test of 4 hours at rated speed.
* 24 bar | pressure of the standard leak test | at which pressure is the standard leak test carried out :: The standard leak test is carried out at 24 bar with clean water.
* 78 dB | noise limit on the test stand | which noise level may not be exceeded on the test stand :: On the test stand a noise level of 78 dB may not be exceeded.
Deviations are decided by the quality engineer on duty, never by the person who built the unit.

## Complaints and corrective action
Complaints reach the quality desk through service, sales or directly from the site.
* 48 hours | time for containment after a serious complaint | how quickly must containment start after a serious complaint :: After a serious complaint containment measures start within 48 hours.
* 30 days | deadline for the root cause report | how long may the root cause report take :: The report on the root cause is due after 30 days.
Corrective actions are closed only when somebody has checked on the shop floor that they work.

## Audits and calibration
Internal auditors never audit their own area.
* 18 months | interval of internal audits | how often is every area audited internally :: Every area is audited internally at intervals of 18 months.
* 52 weeks | calibration interval for pressure gauges | how often are pressure gauges calibrated :: Pressure gauges on the test stands are calibrated every 52 weeks.
The results are posted on the board beside the canteen, the poor ones included.
! Which customer satisfaction score does the quality policy aim for? | satisfaction
! What budget does the quality policy reserve for supplier development? | budget
! How many quality engineers does the quality policy require per plant? | engineers per
"""

REMOTE = """
## Idea
Much of our work needs a workshop, and some of it needs a quiet room at home.
This policy sets the frame within which teams find their own arrangement.
* 60 percent | maximum share of remote work | which share of working time may be remote :: Office staff may spend up to 60 percent of their working time outside the office.
* 6 months | waiting time for new employees | after how many months may new employees work remotely :: New employees may work remotely once they have completed 6 months with the company.
Plant and depot roles are treated case by case, since planning and paperwork can often be done from elsewhere.

## Agreement
The arrangement is agreed between employee and line manager and written down on one page.
* 4 weeks | notice to end a remote work agreement | with how many weeks of notice may a remote work agreement be ended :: Either side may end a remote work agreement with 4 weeks of notice.
* 12 months | review interval of remote work agreements | how often are remote work agreements reviewed :: Remote work agreements are reviewed after 12 months.
Nobody has a right to remote work, and nobody can be forced into it.
A refusal is explained, and the HR desk can be asked to mediate.

## Working time and reach
Teams agree on hours in which everyone can be reached, and outside these hours silence is fine.
* 5 hours | daily core time | how many hours of core time are there per day :: The daily core time covers 5 hours between morning and afternoon.
* 11 hours | minimum rest between working days | how many hours of rest must lie between two working days :: Between two working days there must be at least 11 hours of rest.
Meetings with more than a handful of people are held in core time, and they end five minutes early.

## Equipment and costs
The company provides a laptop, a headset and a chair that passes the ergonomic check.
* 350 EUR | one-time equipment grant | how much is the one-time grant for home equipment :: Employees with a remote work agreement receive a single equipment grant of EUR 350.
* 22 EUR | monthly allowance for internet costs | how much is paid each month toward internet costs :: An allowance of EUR 22 a month is paid toward internet costs.
Equipment stays the property of the company and is returned when the agreement ends.

## Working from abroad
Tax and social security rules differ, so each stay is cleared before it is booked.
* 20 days | limit for working from abroad | how many days a year may someone work from abroad :: Working from another country is limited to 20 days a year.
* 5 weeks | lead time for requests to work abroad | how many weeks ahead must a stay abroad be requested :: Requests to work abroad are filed 5 weeks ahead with the HR desk.
Confidential drawings are not opened outside the European Union.
! What is the tax-free daily allowance for home office days under the remote work policy? | tax-free
! How many desks per ten employees does the remote work policy plan for? | desks
! Which internet speed does the remote work policy require? | speed, bandwidth
"""

PURCHASING = """
## Scope
The policy applies to everything the group buys, from castings to cleaning.
Orders that bypass it are not paid until the Head of Purchasing has released them.
* 500 EUR | value up to which no purchase order is needed | up to which value is no purchase order needed :: Purchases below EUR 500 need no purchase order and may be made by card.
* 3 weeks | standard lead time for purchase requests | how many weeks before the need must a purchase request be filed :: Purchase requests are filed at least 3 weeks before the goods are needed.
Splitting an order to stay below a limit is treated as a breach of this policy.

## Quotes and tenders
Competition keeps prices honest and brings ideas that we would not have had ourselves.
* 7,500 EUR | value from which three quotes are needed | from which value are three quotes needed :: From an order value of EUR 7,500 three comparable quotes are obtained.
* 85,000 EUR | value from which a formal tender is required | from which value is a formal tender required :: A formal tender is required for orders above EUR 85,000.
* 28 days | minimum tender period | how many days must bidders have in a tender :: Bidders are given at least 28 days to prepare an offer in a tender.
Where only one source exists, the technical reason is put on file and checked every year.

## Approval
Approval follows the value of the whole contract and not that of a single call-off.
* 40,000 EUR | approval limit of department heads | up to which amount may department heads approve :: Department heads approve orders of up to EUR 40,000 on their own.
* 0.9 EUR_m | value from which the board decides | from which order value does the board decide :: Contracts worth more than EUR 0.9 million are decided by the management board.
The approver and the requester are never the same person.

## Choosing suppliers
Price is weighed together with delivery record, service near our plants and energy used in production.
* 30 percent | weight of quality in supplier scoring | which weight does quality have in supplier scoring :: In supplier scoring quality counts for 30 percent of the total.
* 2 years | interval of supplier evaluations | how often are suppliers evaluated :: Suppliers of critical parts are evaluated every 2 years.
Suppliers that use forced labor or falsify certificates are dropped for good.

## Payment and advance payments
We pay what we owe on time, because small suppliers live on it.
* 45 days | standard payment term toward suppliers | what payment term do we ask suppliers for :: Our standard payment term toward suppliers is 45 days net.
* 25 percent | maximum advance payment | which share may be paid in advance :: An advance payment may not exceed 25 percent of the order value.
Advance payments above the small limit are secured by a bank guarantee.
! What bonus for savings does the purchasing policy pay to buyers? | bonus
! How many suppliers per part does the purchasing policy require? | dual source, second source
! What gift value may buyers accept under the purchasing policy? | gift
"""

SAFETY = """
## Our promise
Nobody at Tarnholm gets hurt for the sake of a delivery date.
The policy applies in plants, depots, on customers' sites and on the road.
* 16 hours | safety training for new production staff | how many hours of safety training do new production staff receive :: New production staff complete 16 hours of safety training before their first shift.
* 12 people | number of employees per first-aider | for how many employees must there be one first-aider :: There is one trained first-aider for every 12 people on site.
Supervisors open each shift with a short safety talk, and anyone may stop work that looks unsafe.

## Protective equipment
Protective equipment is provided free of charge and replaced whenever it is worn.
* 80 dB | noise level from which hearing protection is mandatory | from which noise level is hearing protection mandatory :: Hearing protection is mandatory wherever the noise level reaches 80 dB.
* 4 years | service life of safety helmets | after how many years are helmets replaced :: Safety helmets are replaced after 4 years even if they look intact.
* 180 EUR | allowance for prescription safety glasses | how much is paid toward prescription safety glasses :: The company pays up to EUR 180 toward prescription safety glasses.
Visitors receive a vest and glasses at the gate and stay on the yellow path.

## Lifting, pressure and heat
Most of our serious near misses happened while lifting castings or opening pipes that still held pressure.
* 23 kg | weight limit for manual lifting | which weight may be lifted by hand :: Loads of more than 23 kg are not lifted by hand.
* 0.5 bar | residual pressure allowed before opening a pipe | which residual pressure is allowed before a pipe is opened :: A pipe is opened only when the residual pressure is below 0.5 bar.
* 55 celsius | surface temperature from which guards are needed | from which surface temperature are guards needed :: Guards are fitted to surfaces that can become hotter than 55 °C.
Lock, tag and try: the person who opens the machine holds the only key.

## Working alone and at night
Working alone is avoided in pits, tanks and confined spaces, and forbidden without a gas meter.
* 2 hours | call-in interval for lone workers | how often must lone workers call in :: Lone workers call the control room every 2 hours.
* 9 hours | maximum length of a night shift | how long may a night shift last :: A night shift may not last longer than 9 hours including the handover.
The control room raises the alarm if a call is missed and cannot be made up within minutes.

## Accidents and near misses
All events are reported, including those in which nothing happened.
* 24 hours | deadline for accident reports | within how many hours must accidents be reported :: Accidents are reported in the safety system within 24 hours.
* 10 days | deadline for closing near-miss reports | within how many days are near-miss reports closed :: Near-miss reports are answered and closed within 10 days.
The Head of Safety reads every report and replies to the person who wrote it.
! What is the vibration exposure limit in the health and safety policy? | vibration
! How many fire drills a year does the health and safety policy prescribe? | fire drill, evacuation
! What blood alcohol limit does the health and safety policy set? | alcohol
"""

CLOSING_HEADINGS = ("Responsibilities and review", "Responsibilities", "Roles, exceptions and review", "Who does what")
CLOSING = (
    "The {owner} is responsible for this text and for training those who apply it.",
    "Exceptions are possible if the {owner} agrees in writing before the event.",
    "Earlier versions are kept in the archive and may be compared with the current one.",
    "Line managers explain the rules to new colleagues and set an example.",
    "The works council was heard before the text came into force.",
    "Suggestions for clearer wording are welcome at any time.",
    "Breaches are discussed openly with the person concerned before any further step is taken.",
    "Where this policy and the law disagree, the law applies.",
    "The text is reviewed when an audit, an accident or a change in the law gives reason to do so.",
    "Translations are provided for the depots; in case of doubt the English text is decisive.",
    "Internal audit checks by sampling whether the rules are followed.",
    "Questions that come up often are collected and answered on the internal pages.",
)
ROLES = (
    ("Line managers", "apply the rules in their teams"),
    ("Works council", "is heard before changes"),
    ("Internal audit", "checks by sampling"),
    ("HR desk", "keeps signed agreements"),
    ("Depot managers", "report local difficulties"),
    ("Legal desk", "watches changes in the law"),
    ("Finance desk", "books and pays what has been approved"),
)

POLICIES = (
    ("policies/business-travel.md", "examples", "Business travel policy", "Issued by the Head of Finance. Classification: internal.", TRAVEL),
    ("policies/leave.docx", "examples", "Leave policy", "Issued by the Head of People. Classification: internal.", LEAVE),
    ("policies/warranty-and-returns.html", "cases", "Warranty and returns policy", "Issued by the Head of Service. Classification: internal.", WARRANTY),
    ("policies/data-retention.md", "cases", "Data retention policy", "Issued by the data protection coordinator. Classification: internal.", RETENTION),
    ("policies/information-security.html", "examples", "Information security policy", "Issued by the Head of Security. Classification: internal.", SECURITY),
    ("policies/quality.pdf", "examples", "Quality policy", "Issued by the Head of Quality. Classification: internal.", QUALITY),
    ("policies/remote-work.md", "examples", "Remote work policy", "Issued by the Head of People. Classification: internal.", REMOTE),
    ("policies/purchasing.docx", "cases", "Purchasing policy", "Issued by the Head of Purchasing. Classification: internal.", PURCHASING),
    ("policies/health-and-safety.md", "examples", "Health and safety policy", "Issued by the Head of Safety. Classification: internal.", SAFETY),
)  # fmt: skip
