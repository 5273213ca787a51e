"""Stop words of English customer support."""


def word_set(text: str) -> frozenset[str]:
    """Make a set of the words of a text."""
    return frozenset(text.split())


STOP_WORDS = word_set(
    """
    a about above after again against ain all also am an and any anybody anyone anything are aren arent around as at
    away back be became because been before being below between both but by came can cannot cant come could couldn
    couldnt did didn didnt do does doesn doesnt doing don done dont down during each either else enough even ever every
    everyone everything few for from further gave get gets getting give given go goes going gone got gotten had hadn
    hadnt has hasn hasnt have haven havent having he her here hers herself him himself his how however i id if ill im in
    into is isn isnt it its itself ive just keep kind know let lets like ll lot made make makes many may maybe me might
    mine more most much must my myself need needs neither never no nobody none nor not nothing now of off often oh on
    once one only onto or other others ought our ours ourselves out over own perhaps put quite rather re really said
    same saw say says see seem seems seen shall she should shouldn shouldnt since so some somebody someone something
    soon still such sure take takes taken tell than that thats the their theirs them themselves then there theres these
    they theyre theyve thing things think this those though through thru to today together too took toward tried try
    trying under until up upon us use used using ve very via want wanted wants was wasn wasnt way we well went were
    weren werent weve what whatever when where whether which while who whom whose why will with within without won wont
    would wouldn wouldnt yes yet you youll your youre yours yourself youve
    i'm i've i'd i'll you're you've you'd you'll he's she's it's we're we've we'd we'll they're they've they'd they'll
    isn't aren't wasn't weren't hasn't haven't hadn't doesn't don't didn't won't wouldn't shan't shouldn't can't
    couldn't mustn't let's that's who's what's here's there's when's where's why's how's ain't y'all
    """
)

# Words that say nothing about the matter of a support conversation, though they may carry a sentence.
SUPPORT_STOP_WORDS = word_set(
    """
    able absolutely actually add advise afraid afternoon afternoons agent ago ahead almost alone already alright
    although always amp anymore anytime anyway anyways apologies apologise apologize apparently appears appreciate
    asap ask asked asking assist assistance assured attack available aware away awesome awful bad bam basically
    believe best better beyond bit bits bring bringing buddy bye call called case cause caused certainly chance
    chat check checked checking cheers clarify clearly click clicking closed coming completely concern concerns
    confirm confirmed confused contact content correct couple course crazy currently customer cuz damn darn day
    days deal dear definitely despite details different discuss dm dude due earlier early easy empty end enjoy
    ensure evening exactly excellent exist expect expecting experience extra fact fan far fast favorite feel
    finally find fine follow following forgot forward found friend friends fuck full fun general gives glad gonna
    good goodbye gosh gotcha gotta great gt guess guy guys haha happen happened happening happens happily happy
    hard hate hear heard hell hello help helped helpful helping heres hes hey hi higher hmm hold hope hopefully
    hour hours howdy huh idea idk ill inconvenience info information instead interested issue issues itll keeping
    keeps kindly known lack last late later least leave leaving left less lets link literally little live lmao lol
    long look looked looking looks loop lose love luck lucky ma'am madam main man mate matter mean means meantime
    member mention mentioned message mind mins minute minutes miss moment month months morning multiple myself name
    near necessary new next nice night nope normal nothing odd ok okay old omg oops open passed past patience
    people per perfect personal pm pick piece place please pleasure pls plus plz point possible prefer pretty
    probably problem problems process properly provide provided providing put question questions quick quickly
    quite ready real realized reason reasons receive received recent recently refer regarding regards remember
    remembered reply respond response rest right rude saying says second seconds seem select send sent seriously
    set several shall share shit shoot shout show shows side similar simple simply sincerely single sir sooo sorry
    sort sound sounds specific start started stated stating stay step steps stop strange successful successfully
    stuff stupid support suppose supposed surely surprise talk team technically telling tested thank thanks thanx
    thatd theyd theyll thinking tho thought thoughts three thx til time times told tomorrow tonight totally touch
    town trouble try turn turned turning twice two ugh unable understand unfortunately update usual usually view
    wait waiting wanna week weeks welcome whats whole wish woah won wonderful wondering word work worked working
    works worries worse worst wow wrong wtf ya yay yeah year years yep yesterday youd yup monday tuesday wednesday
    thursday friday saturday sunday january february april june july august september october november december
    """
)
