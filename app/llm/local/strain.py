"""Turns of phrase that show what a conversation costs the customer, and that they may take it further."""

from app.llm.local.patterns import phrases

_MANY = (
    "(?:an?|one|two|three|four|five|six|several|multiple|many|countless|numerous|few|a few|(?:a )?couple of|\\d{1,3})"
)
_CONTACTED = (
    "(?:called|phoned|rang|e-?mailed|written|wrote|messaged|contacted|tweeted|dm'?d|asked|complained|reported|chased)"
)
_SUPERIOR = "(?:manager|supervisor|superior|boss|team lead(?:er)?|director)s?"

# What the customer says of their way to here.
CONTACTED_BEFORE = phrases(
    f"{_CONTACTED}(?: \\S+){{0,4}} (?:already|before|twice|again|repeatedly|{_MANY} times|last (?:week|month|time))",
    f"(?:already|repeatedly) {_CONTACTED}", f"{_CONTACTED} (?:and|&) {_CONTACTED}",
    "(?:second|third|fourth|fifth|2nd|3rd|4th|5th|umpteenth|nth) time",
    "(?:multiple|several|many|countless|numerous) (?:calls|e-?mails|tweets|messages|agents|chats)",
    "(?:nobody|no ?one|never)(?: \\w+)? (?:answer\\w*|repl\\w+|respon\\w+|g[eo]ts? back|calls? back|called back)",
    "(?:no|without)(?: an?| any)? (?:reply|answer|call back)",
    "(?:no|without) (?:an? |any )?response (?:from (?:you|your|any|support|customer)|to my)",
    "(?:haven't|hasn't|not|never)(?: \\w+)? (?:heard (?:back|anything|from)|replied|responded)", "been ignored",
    "ignor(?:ed|ing) (?:me|my|us)", "again and again", "over and over", "time and (?:time )?again",
)  # fmt: skip
WAITED = phrases(
    f"(?:wait(?:ing|ed)|on hold|been|tr(?:ying|ied))(?: \\S+){{0,4}} (?:for|since|over) "
    f"(?:over |about |almost |nearly |more than |the (?:past|last) |at least )?{_MANY} (?:hours?|days?|weeks?|months?)",
    "still waiting", "(?:for|in) (?:hours|days|weeks|months|ages)(?! of)", "on hold", "all (?:day|week)",
    "how (?:much longer|long do i have to wait)",
)  # fmt: skip
SAID_AGAIN = phrases(
    "(?:i|we)(?:'ve| have)? (?:already|just) (?:\\w+ )?(?:told|said|sent|gave|given|explained|answered|provided|did"
    "|done|tried|checked|mentioned|asked)",
    "(?:as|like) i (?:said|told|mentioned|explained|wrote)", "i told you", "i(?:'ve| have) told", "i said",
    "already (?:tried|done|did|sent|checked|provided)",
)  # fmt: skip
PASSED_ON = phrases(
    "(?:transferr\\w+|redirected|forwarded|sent|bounced|passed)(?: \\w+)? (?:around|from|between|to (?:another"
    "|a different|someone|somebody|the wrong))",
    "(?:transfer|connect|put|redirect)(?:ring|ing)? you (?:through |over )?(?:to|with)",
    "(?:call|contact|ask|reach out to)(?: \\w+)? (?:the|another|your) \\w+ (?:department|team|provider|carrier|bank)",
    "fobb(?:ed|ing)(?: \\w+)? off", "told (?:me )?to (?:call|contact|ask|go to)",
    "different (?:person|agent|department)",
)  # fmt: skip
IN_VAIN = phrases(
    "still(?: \\S+){0,2} (?:not?|the same|isn't|doesn't|can't|won't|hasn't|haven't|unable|having|experienc\\w+"
    "|gett\\w+|fail\\w*|persist\\w*|drop\\w*|slow|see\\w*|fac\\w+|happen\\w*|crash\\w*|freez\\w*|stuck|blank)",
    "(?:didn't|doesn't|did not|does not|don't|won't|not|isn't)(?: \\w+)? (?:work|help|change|fix|solve|resolve)\\w*",
    "no (?:luck|change|difference|improvement)", "(?:same|another) (?:error|issue|problem|thing)", "persists?",
    "makes? no (?:sense|difference)", "keeps? (?:happening|coming|dropping|crashing|freezing|asking|saying|telling)",
)  # fmt: skip

# What the customer may do next.
ASKS_SUPERIOR = phrases(
    f"(?:speak|talk|complain|escalate|transferred|connected|put through)(?: this| it| me)? (?:to|with) "
    f"(?:an?|your|the|some|another|any)(?: \\w+)? {_SUPERIOR}",
    f"your {_SUPERIOR}", f"(?:want|need|get|give|find|fetch|have|is there|demand)(?: me| us)? an? {_SUPERIOR}",
    "(?:some(?:one|body)|person) (?:(?:more )?senior|higher(?: up)?|above you|in charge|with authority)",
    "escalat(?:e|ed|ing) (?:this|it|my|the)", "(?:formal|official) complaint",
    "complaints? (?:department|team|procedure)",
    "(?:real|actual) (?:person|human)", "head office", "higher up",
)  # fmt: skip
LEGAL = phrases(
    "lawyers?", "attorneys?", "solicitors?", "legal (?:action|advice|team|steps|proceedings)", "lawsuit", "law ?suit",
    "(?:i(?:'ll| will| am going to|'m going to)|we(?:'ll| will)|going to|gonna) sue", "su(?:e|ing) (?:you|your|them)",
    "(?:small claims|see you in|take (?:you|this|it|them) to) court", "small claims", "ombudsman", "trading standards",
    "better business bureau", "consumer (?:protection|rights|affairs)", "regulator", "chargeback",
    "report(?:ing)? you(?: guys)? to", "class action", "file a (?:\\w+ )?complaint (?:with|against)",
)  # fmt: skip
LEAVES = phrases(
    "cancel(?:l?ing|l?ed)? (?:my|our|the|this|all my)(?: \\w+){0,2} (?:account|subscription|contract|membership|plan"
    "|policy|service|accounts)",
    "(?:clos|delet|terminat)(?:e|ing|ed) (?:my|our)(?: \\w+)? (?:account|contract|membership)",
    "(?:switch|chang|mov)(?:e|ing) (?:to (?:another|a different|your competitor|a competitor)"
    "|(?:provider|supplier|bank|carrier)s?)",
    "(?:take|taking) (?:my|our) (?:business|money|custom) (?:elsewhere|somewhere)",
    "(?:go|going|shop|shopping|buy|look|order)(?:ing)? (?:elsewhere|somewhere else"
    "|to (?:a|your|another) (?:competitor|company))",
    "(?:never|not|won't|will not)(?: be| ever| going to be)? (?:us|buy|order|shop|fly|book|com|stay|travel|deal|return)"
    "(?:e|ing)?(?: \\w+){0,4} (?:again|anymore|any more|ever)",
    "(?:never|not) (?:using|coming|ordering|flying|buying|shopping|staying) (?:\\w+ )?(?:again|back)",
    "(?:lost|losing|lose)(?: \\w+)? (?:an? )?(?:\\w+ )?customer",
    "last time i(?:'ll| will)? (?:ever )?(?:use|buy|order|fly|shop|book)",
    "leav(?:e|ing) (?:you(?: guys)?|your (?:company|service|bank|network))", "done with (?:you|your|this company)",
)  # fmt: skip
PUBLIC = phrases(
    "(?:bad|negative|terrible|awful|honest|one[- ]star|1[- ]star|0[- ]star|scathing) reviews?",
    "(?:leave|leaving|write|writing|post|posting)(?: you)? (?:an? |my )?(?:\\w+ )?review", "trust ?pilot", "yelp",
    "(?:tell|warn|telling|warning) (?:every(?:one|body)|all my|people|others|the world)", "go(?:ing)? (?:public|viral)",
    "(?:on|over|to) (?:all )?(?:my |the )?social media", "post(?:ing|ed)? (?:this|it|about (?:this|it|you))",
    "(?:call|contact|tell|go to)(?:ing)? the (?:press|papers|newspapers?|media|news)", "watchdog", "name and shame",
)  # fmt: skip
ANGER = phrases(
    "unacceptable", "ridiculous", "disgust\\w*", "disgrac\\w*", "pathetic", "outrag\\w*", "furious", "livid",
    "appall\\w*", "shambles", "shocking", "useless", "incompetent", "rip ?off", "ripped off", "scam\\w*", "robbery",
    "fed up", "sick(?: and tired)? of", "had enough", "fuming", "liars?", "lied", "angry", "what a joke",
    "(?:a|is a|such a) joke",
    "(?:worst|terrible|awful|horrible|horrendous|appalling|shocking|poor|bad)(?: \\w+)? (?:service|company|experience"
    "|support|airline|store|app|communication)",
    "waste of (?:my )?(?:time|money)", "are you (?:kidding|serious|joking)", "wtf", "do your job", "joke of a",
    "never been (?:so|treated)", "rude",
)  # fmt: skip
NEGATED = phrases("(?:not|n't|no need to|without|don't|didn't|won't)(?: \\S+){0,2} $")
AGENT_ESCALATES = phrases(
    "escalat(?:e|ed|ing)",
    f"(?:transfer|connect|put)(?:ring|ing)? you (?:through |over )?(?:to|with) (?:my|a|our|the) {_SUPERIOR}",
    f"(?:my|our|a) {_SUPERIOR} (?:will|can)",
)  # fmt: skip
