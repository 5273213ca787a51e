"""Turns of phrase of English customer support: what a sentence does in a conversation."""

import re


def phrases(*alternatives: str) -> re.Pattern[str]:
    """Build a pattern of whole phrases; an apostrophe may be absent from the chat, or typographic."""
    joined = "|".join(alternatives).replace("'", "['\u2019]?")
    return re.compile(rf"\b(?:{joined})(?!\w)", re.IGNORECASE)


PLEASANTRY = phrases(
    "thank(?:s| you)", "welcome", "apologi[sz]e", "apologies", "sorry (?:to|for|about)", "i (?:understand|appreciate)",
    "good ?bye", "bye", "cheers", "take care", "hello", "glad", "pleasure", "patience", "frustrat\\w+", "bear with",
    "have an? (?:great|nice|good|lovely|wonderful|fantastic|awesome)", "nice (?:day|evening|weekend)", "enjoy your",
    "happy to (?:help|assist|hear)", "hear (?:that|this|about|from you)", "no (?:problem|worries)", "hold on",
    "(?:one|a|just a) (?:moment|minute|second|sec)", "let (?:me|us) (?:check|see|look|know)",
    "keep us (?:in the loop|posted)", "assist you (?:further|today)",
)  # fmt: skip
CLOSING_QUESTION = phrases(
    "how (?:can|may|could|might|do) (?:i|we) (?:help|assist|be of)", "what can (?:i|we) (?:help|do|assist)",
    "what brings you", "how are you", "how's it going", "(?:help|assist) you today", "(?:anything|something) else",
    "any ?(?:more|other) help", "further assistance", "does that (?:help|make sense|sound)",
    "is that (?:ok|okay|all|right|correct)", "are you (?:still )?there",
)  # fmt: skip
INTRODUCTION = re.compile(
    r"^\W*(?i:my name(?:['\u2019]?s| is)|i['\u2019]?m|i am|this is|it['\u2019]?s)\s+[A-Z]\w+(?:\s[A-Z]\w+)?\W*$"
)
COMPLAINT = phrases(
    "can't", "cannot", "doesn't", "isn't", "aren't", "won't", "didn't", "hasn't", "wasn't", "never", "no longer",
    "not (?:work|show|load|receiv|gett|recogni|connect|respond|charg|being|able|happy|right|good)\\w*", "still",
    "keeps?", "errors?", "issues?", "problems?", "trouble", "wrong", "broken?", "unable", "crash\\w*", "overcharged",
    "delay\\w*", "lost", "missing", "slow\\w*", "terrible", "awful", "horrible", "worst", "useless", "ridiculous",
    "disappoint\\w*", "rude", "stuck", "fail\\w*", "waiting", "waited", "annoy\\w*", "unacceptable", "disgust\\w*",
    "joke", "poor", "bad", "scam\\w*", "fraud\\w*", "stole\\w*", "damaged", "defective", "charged (?:me )?twice",
)  # fmt: skip
WISH = phrases(
    "i(?:'d| would) (?:like|love)", "i (?:need|want|wanna)", "i(?:'m| am) (?:looking|trying|interested)", "help me",
    "looking for", "(?:can|could|would|will) (?:you|i|we)", "how (?:do|can|to|long|much)",
    "please (?:book|cancel|check|find|send|change)", "wonder(?:ing|ed)? (?:if|whether|how)",
)  # fmt: skip
REQUEST = re.compile(r"\?\s*$|\b(?:(?:could|can|would|will) you|please|pls|dm|send us)\b", re.IGNORECASE)
ADVICE = phrases("try", "you (?:can|could|should|may)", "recommend", "suggest", "make sure", "go to", "check")
REMEDY = phrases(
    "please", "could you", "can you", "try", "dm", "send us", "contact", "call", "reach out", "check", "make sure",
    "go to", "you (?:can|need|will)", "you'll", "we will", "i will", "will be", "team", "has been",
    "have been", "booked", "confirmed", "reserved", "scheduled", "cancell?ed", "refund(?:ed)?", "sent", "submitted",
    "success\\w*", "available", "unavailable", "unable", "unfortunately", "recommend", "suggest",
)  # fmt: skip
IDENTIFICATION = re.compile(
    r"\b(?:name|number|pin|e-?mail(?: address)?|date of birth|birthday|zip code|user ?name|membership level|pet"
    r"|(?:order|account|flight|ride) id)\b.*\?\s*$",
    re.IGNORECASE,
)
# What follows one of these did not happen, or not yet.
CONDITION = re.compile(r"\b(?:if|whether|once|until|in case|when)\b", re.IGNORECASE)
