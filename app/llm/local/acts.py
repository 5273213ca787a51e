"""Turns of phrase by which something is promised, asked for, offered, settled, asked or answered."""

import re

from app.llm.local.patterns import phrases

# "well" and "ill" are words of their own: without an apostrophe only a capital tells the promise.
PROMISE = re.compile(
    r"\b(?:(?:(?:i|we)(?:['\u2019]ll| will| am going to|['\u2019]m going to| are going to"
    r"|['\u2019]re going to)|(?-i:Ill))"
    r"(?! (?:be (?:happy|glad|here|able|right)|have to|need|miss|just wait|appreciate|never|look forward|wait|answer))"
    r"|(?:our|the|my|a)(?: (?!(?:i|we|you|it)\b)[\w']+){1,5} (?:will|is going to) (?!not|be able|help)"
    r"|let me (?:call|send|forward|escalate|file|submit|arrange|book|process|refund|report|raise|open))\b",
    re.IGNORECASE,
)
OTHERS_PROMISE = phrases(
    "(?:they|he|she|someone)(?: will|'ll| is going to|'re going to) (?:call|contact|be in touch|reach|get back|give"
    "|review|look|send|respond|reply|follow|help|investigate|deliver|collect|pick|process|e-?mail|refund|replace)",
)  # fmt: skip
INSTRUCTION = phrases(
    "please(?: \\w+ly)? (?!note|hold|bear|wait|stand by|be advised|accept|help|hesitate|feel free|let (?:me|us))\\w+",
    "(?:could|can|would|will) you(?: please| kindly| also)? (?!help|hold|wait|tell|explain|give|have|hear)\\w+",
    "kindly", "make sure", "be sure to", "don't forget to", "dm us", "send us", "i (?:recommend|suggest)",
    "you (?:will need|need|have|should|must)(?: to)?",
)  # fmt: skip
# Said of what happens while both sides are still writing.
TRANSIENT = phrases(
    "(?:one|a|just a) (?:moment|minute|second|sec)", "hold on", "bear with", "be right back", "feel free", "hesitate",
    "take (?:that|it|this one)", "check (?:that|this|it)(?: for you)?", "let you know (?:how|what)", "help you",
    "assist",    "need anything", "have an? (?:great|good|nice)", "(?:show|walk|guide) you",
)  # fmt: skip
DEFERRED = phrases(
    "bring", "visit", "return the", "send (?:it|the|them) back", "fill (?:out|in)", "complete the form", "sign the",
    "next time", "in the future", "later", "arrive", "come (?:to|by|in)", "pick (?:it|them) up",
)  # fmt: skip
DUE = phrases(
    "(?:with)?in (?:the )?(?:next )?(?:\\d+(?: ?(?:-|to|\u2013) ?\\d+)?|an?|one|two|three|four|five|a few|a couple of) "
    "(?:business |working )?(?:minutes?|hours?|days?|weeks?|months?)",
    "(?:by |before |on |until |this |next |at |for )?(?:the end of (?:the )?)?(?:today|tonight"
    "|tomorrow(?: morning| afternoon| evening| night)?"
    "|(?:mon|tues|wednes|thurs|fri|satur|sun)day(?: (?:morning|afternoon|evening|night))?)"
    "(?: (?:at )?\\d{1,2}(?::\\d\\d)? ?(?:am|pm|a\\.m\\.|p\\.m\\.)?)?",
    "(?:by |before |this |next )(?:morning|afternoon|evening|week(?:end)?|month|year|end of (?:the )?\\w+)",
    "(?:by |before |on |until )?(?:january|february|march|april|may|june|july|august|september|october|november"
    "|december) \\d{1,2}(?:st|nd|rd|th)?",
    "(?:by|before|at|until|around) \\d{1,2}(?::\\d\\d)? ?(?:am|pm|a\\.m\\.|p\\.m\\.|o'clock)",
    "(?:by|before|at) (?:\\d{1,2}:\\d\\d|noon|midnight)", "as soon as possible", "asap", "right away", "immediately",
    "shortly",
)  # fmt: skip

OFFER = phrases(
    "(?:should|shall|can|may|could) (?:i|we) (?!have|get|ask|know|help)\\w+", "would you (?:like|want)",
    "do you want(?: me| us)? to", "(?:i|we) can (?!help|not)\\w+", "want me to", "are you (?:ok|okay|happy) with",
)  # fmt: skip
AGREEMENT = re.compile(
    r"^\W*(?:yes|yeah|yep|yup|sure|ok(?:ay)?|alright|perfect|great|sounds (?:good|great)|please do|go ahead|that works"
    r"|of course|absolutely|definitely|deal|that['\u2019]?s fine|fine|do it|let['\u2019]?s do)\b"
    r"(?!,? (?:but|what|i (?:already|did)))",
    re.IGNORECASE,
)
SETTLED = phrases(
    "(?:is|are|was|were|been|it's|have|has|i've|we've)(?: now| just| already| successfully)* (?:booked|reserved"
    "|confirmed|scheduled|cancell?ed|refunded|credited|approved|escalated|replaced|waived|extended|submitted|processed"
    "|issued|changed|updated)",
    "successfully \\w+", "submitted success\\w+", "we (?:have )?agreed",
    "(?:ride|order|ticket|table|room|flight|appointment)(?: is)? (?:booked|cancell?ed|confirmed)",
    "(?:we|i) (?:cannot|can't|(?:am|are) (?:not able|unable) to|will not|won't) "
    "(?:accept|refund|process|offer|change|extend|waive|cancel|book)",
)  # fmt: skip
CHOICE = phrases(
    "i(?:'ll| will) (?:take|go with|choose|pick|keep)(?! (?:it easy|a look|my time|care|an eye|you posted))",
    "let's (?:go with|do|book|stick|make it)", "i(?:'ve| have)? decided", "i changed my mind", "i(?:'d| would) rather",
    "never ?mind", "(?:please )?cancel (?:it|my|the|that)", "i don't (?:want|need|require) (?:it|that|the)",
    "book (?:it|that one|me)",
)  # fmt: skip

HELP_QUESTION = re.compile(
    r"\b(?:can|could|will|would|may) (?:you|i|someone|anyone)(?: guys)?(?: \w+)? (?:help|assist|ask)"
    r"(?: (?:me|you|a|something|question))*(?: out)?(?: with (?:this|that|it))?(?:,? please)?(?: today)?\W*$"
    r"|^\W*(?:really|right|ok(?:ay)?|seriously|are you (?:sure|kidding|serious)|hello|anyone|you know|you there)\W*$",
    re.IGNORECASE,
)
UNMARKED_QUESTION = re.compile(
    r"^\W*(?:(?:and|so|but|also|hi|hello|hey|please)\W+)*(?:what(?:'s| is| are| does| do)|where (?:is|are|do|can)"
    r"|when (?:will|is|are|do|does|can)|why (?:is|are|do|does|did|can|was|am|can['\u2019]?t|don['\u2019]?t)|which"
    r"|who is|how (?:do|does|can|long|much|many)|do you (?:have|know)|(?:is|are) there|(?:can|could) i"
    r"|any (?:idea|news|update|explanation))\b",
    re.IGNORECASE,
)
PUT_OFF = phrases(
    "let me (?:check|see|look|find|ask|confirm|pull)", "(?:one|a|just a) (?:moment|minute|second|sec)", "hold on",
    "bear with", "i(?:'ll| will) (?:check|look|find out|see)", "give me (?:a|one)", "checking", "i don't know",
    "not sure", "no idea", "i didn't (?:get|understand)", "don't (?:quite )?understand", "(?:good ?)?bye",
    "(?:happy|glad) to (?:help|assist)", "thank(?:s| you) for (?:reaching|contacting|getting)",
)  # fmt: skip
YES_NO = re.compile(
    r"^\W*(?:(?:and|so|well|oh|hi)\W+)?(?:yes|yeah|yep|yup|no|nope|nah|sure|of course|correct|right|exactly|absolutely"
    r"|unfortunately|sorry,? (?:but|we|no))\b",
    re.IGNORECASE,
)
