"""Turns of phrase that show how a conversation ends, by side."""

from app.llm.local.patterns import phrases

AGENT_DONE = phrases(
    "(?:is|are|was|were|been|it's|that's|have|has|i've|we've)(?: now| just| already| successfully| all)* (?:booked"
    "|reserved|confirmed|scheduled|cancell?ed|refunded|credited|changed|updated|fixed|resolved|processed|issued|sorted"
    "|completed?|placed|shipped|on (?:its|the) way|activated|applied|waived|removed|extended|reset|approved|replaced"
    "|taken care of|corrected|done)",
    "success(?:ful)?(?:ly)?", "booked", "all set", "(?:changes|all) done", "confirmed for",
    "here (?:is|are) (?:your|the)", "glad (?:that|it|to hear|we could|i could|you)", "happy to hear",
)  # fmt: skip
AGENT_REFUSED = phrases(
    "unfortunately", "sorry,? but", "cannot", "can't", "unable", "unavailable", "unsuccessful", "failed", "declined",
    "denied", "exhausted", "we've tried", "no longer", "does not", "do(?: not|n't) (?:have|offer|accept)",
    "not (?:be )?(?:available|possible|able|allowed|eligible|accept\\w*|successful|offer)",
    "no (?:rooms?|viewing|flights?|hotels?|restaurants?|availability|record|way)", "(?:wasn't|weren't|couldn't) able",
    "could(?: not|n't) (?:complete|find|process)", "any of your criteria", "against (?:our )?policy", "non-refundable",
    "nothing (?:we|i) can",
)  # fmt: skip
AGENT_PENDING = phrases(
    "will (?:be in touch|be contacted|contact|get back|look into|have a look|follow up|call|e-?mail|reach out"
    "|let you know|investigate|review|respond|reply|receive)",
    "will be (?:refunded|credited|sent|delivered|shipped|processed|resolved)", "escalat\\w+", "look(?:ing)? into",
    "we(?:'ll| will) (?:be|get|look|take|pass|check|do|send|need|continue)", "within (?:the )?(?:next )?\\d+",
    "\\d+ (?:business |working )?(?:days|hours)", "forward(?:ed)?", "pass(?:ed)? (?:this|it|that|on|along)",
    "keep you (?:posted|updated)", "as soon as", "(?:direct |private )message", "dm", "send us", "let (?:us|me) know",
    "please (?:try|check|contact|call|provide|send|restart|go|make|allow|visit|follow|reach)", "recommend", "suggest",
    "could you", "can you", "let's try",
)  # fmt: skip
CUSTOMER_GLAD = phrases(
    "(?:works|working|worked|running|fixed|loading|back|ok|okay|fine|good)(?: \\w+){0,2} "
    "(?:now|again|perfectly|great|well|fine|better|smoothly)",
    "(?:that|it|this)(?:'s| has| is| seems to have| finally| all)* "
    "(?:worked|works|working|helped|helps|fixed|solved|resolved|did (?:it|the trick))",
    "now(?: \\w+){0,6} (?:works?|working|running|connected)", "now (?:have|recognizes|connects|loads|opens|i can)",
    "finally (?:works|working|i can|showing)", "i can (?:now|finally)",
    "(?:is|been|be) (?:resolved|solved|fixed|sorted)", "problem (?:is )?(?:solved|okay)",
    "seems to (?:be|have) (?:working|resolved|improved|fixed|better|fine)",
    "(?:much|lot|bit|feels|running|working|far) (?:better|faster|smoother)", "improved", "noticeably", "showing up",
    "all (?:good|set|sorted|fixed)", "got it (?:working|to work)", "did the trick", "success\\w*", "hasn't returned",
    "(?:no|without)(?: any)? (?:more )?(?:issues?|errors?|problems?|lag|crashing|dropping)",
    "no longer (?:crash|gett|see|hav|happen|an issue|a problem|slow|drop|freez)\\w*",
    "you(?:'ve| have) been (?:a |very |so |big |great )*help\\w*",
)  # fmt: skip
CUSTOMER_THANKS = phrases(
    "thank(?:s| you)", "thx", "ty", "cheers", "perfect", "great", "awesome", "excellent", "wonderful", "amazing",
    "appreciate\\w*", "that's all", "that (?:is|will be) all", "sounds good", "lovely", "brilliant",
)  # fmt: skip
CUSTOMER_UPSET = phrases(
    "still (?:not|no|the same|having|experienc\\w+|gett\\w+|unable|fail\\w*|persist\\w*|waiting|drop\\w*|slow|see\\w*"
    "|fac\\w+|encounter\\w*|isn't|doesn't|can't|won't|haven't|hasn't|nothing|happen\\w*|shows?|says?|there|crash\\w*"
    "|freez\\w*|miss\\w*|stuck|blank)",
    "still (?:\\w+ ){0,2}(?:not|isn't|doesn't|can't|won't|unable)", "persists?", "not (?:good enough|happy|satisfied)",
    "(?:didn't|doesn't|did not|does not|don't|won't|not|isn't|is not)(?: \\w+)? "
    "(?:work|working|help|helpful|change|fix|improve|resolved|solved|acceptable)",
    "never ?mind", "thank(?:s| you) any ?ways?", "for trying", "oh well", "(?:that's|that is) too bad", "bummer",
    "no luck", "unacceptable", "ridiculous", "useless", "somewhere else", "try (?:again )?(?:later|another time)",
    "some other (?:time|place)", "forget it", "give up", "waste of", "awful", "terrible", "worst", "disgust\\w*",
    "pathetic", "frustrat\\w*", "disappoint\\w*", "annoying", "darn", "dang", "drats?", "shucks", "poor show",
    "u?hang_up", "what a joke", "cancel my (?:account|subscription|contract|order)", "switch(?:ing)? (?:to|provider)",
)  # fmt: skip
CUSTOMER_PENDING = phrases(
    "i(?:'ll| will| am going to|'m going to) (?:try|check|do|give|call|restart|let you|see|go|send|wait|keep|look|get"
    "|reset|contact|reach)",
    "will (?:do|try|check)", "let me (?:try|check)", "sent", "waiting", "look(?:ing)? forward to hear\\w*",
    "what (?:now|next|else)", "what should i (?:do|try)",
)  # fmt: skip

# What tells a wish to have something done from a wish to know something.
ACTION_WISH = phrases(
    "book", "reserve\\w*", "reservation", "schedul\\w*", "appointment", "cancel\\w*", "chang(?:e|ing)", "refund\\w*",
    "return", "order", "buy", "fix", "replace\\w*", "report", "dispute", "transfer", "a (?:ride|taxi|cab)", "send me",
    "pick me up", "sign (?:me )?up", "complain\\w*", "activate", "deactivate", "reset", "update my", "rsvp",
    "plan (?:a|my)", "troubleshoot", "help with",
)  # fmt: skip
INFORMATION = phrases(
    "what(?:'s| is| are| was| time| does| do| kind)", "when(?:'s| is| are| will| do| does| can)", "which",
    "who(?:'s| is)", "where(?:'s| is| are| can| do)",
    "how (?:much|many|long|far|often|late|early|do|does|can|to|old|is)",
    "is (?:there|it|this|that)", "are (?:there|you)", "do you (?:have|know|offer|sell|do|ship|stock|accept|take)",
    "does (?:it|the|this|your)", "(?:can|could) i", "know (?:if|when|what|how|whether|about)", "wonder\\w*", "search",
    "find(?: out)?", "look(?:ing)? (?:for|up)", "check (?:my|the|on)", "information", "info", "tell me", "curious",
    "recommend\\w*", "rating", "balance", "price", "cost", "weather", "directions", "status",
    "any (?:idea|news|update)",
)  # fmt: skip
