"""The words and sentence templates of the generated reviews.

A template is a row of tokens: a plain word stands for itself, a name in braces is a slot. A slot
draws one entry from a list, chosen by the category, by the stars or by neither, and inflects it
to the person and the tense of the review. It is one token wide, and bears the name of one of its
words ("her" is also "my", "our" or "their"), with a star where the subject is plural.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

CATEGORIES = ("restaurant", "hotel", "film", "phone", "book")
STARS = ("1", "2", "3", "4", "5")
PERSONS = ("i", "we", "mum", "friends")
TENSES = ("past", "present")

Chooser = Literal["category", "stars", "neither"]
Inflection = Literal["none", "person", "tense", "verb", "plural"]
Lists = tuple[tuple[str, ...], ...]


class Slot(NamedTuple):
    """One slot of the templates.

    Attributes:
        chooser: what picks the list of entries.
        lists: by category, one list each and a last one of vague words that suit them all;
            by stars, one list each; otherwise a single list.
        size: the field of the grammar that says how many entries of each list are used.
        inflection: "none" takes an entry as it is; "person" and "tense" hold one form a value;
            "verb" holds base form, third person and past; "plural" is a verb of plural subjects.
    """

    chooser: Chooser
    lists: Lists
    size: str
    inflection: Inflection = "none"


def inflect(entry: str, inflection: Inflection, person: int, tense: int) -> str:
    """Return the form of `entry` for `PERSONS[person]` and `TENSES[tense]`."""
    if inflection == "none":
        return entry
    forms = entry.split("/")
    if inflection == "person":
        return forms[person]
    if inflection == "tense":
        return forms[tense]
    base, third, past = forms
    if TENSES[tense] == "past":
        return past
    return third if inflection == "verb" and PERSONS[person] == "mum" else base


def _lists(*rows: str) -> Lists:
    return tuple(tuple(row.split()) for row in rows)


# One row a category, then the vague words. Neighbouring categories share words, as they do in life.
_KINDS = _lists(
    "restaurant place bistro cafe diner pizzeria pub canteen",
    "hotel place inn hostel guesthouse resort lodge motel",
    "film movie thriller comedy drama sequel western documentary",
    "phone handset device smartphone mobile model gadget flagship",
    "book novel thriller paperback memoir sequel biography story",
    "one favourite classic bargain suggestion",
)
_PARTS = _lists(
    "soup pasta service bread steak menu salad dessert bar curry coffee pizza "
    "fish sauce wine starter risotto lamb duck chicken rice cheese cake pudding "
    "terrace salmon burger omelette pie stew lasagne tart sorbet table lunch dinner "
    "supper bill beer tea",
    "room bed service bathroom breakfast view shower bar pool lobby balcony mattress "
    "lift sauna gym wifi parking heating pillow bath garden terrace spa furniture "
    "corridor suite kettle minibar wardrobe bedding buffet beach location kitchen television "
    "carpet lamp desk lounge staircase",
    "plot acting ending camera soundtrack script dialogue lighting sound pacing music opening "
    "editing story humour romance scenery action animation screenplay chase finale photography "
    "trailer makeup choreography setting twist premise suspense drama montage casting narration "
    "title poster climax prologue symbolism tension",
    "screen battery camera speaker sound menu keyboard charger signal display case software "
    "microphone torch touchscreen processor memory storage cable wifi ringtone calendar browser "
    "alarm scanner zoom flash volume packaging manual casing glass lock interface vibration map "
    "calculator update warranty weight",
    "plot prose ending cover dialogue opening translation pacing story language style premise "
    "humour romance setting twist suspense narration title prologue symbolism tension epilogue "
    "preface foreword print paper binding index blurb poetry grammar research imagery structure "
    "climax finale mystery satire glossary",
    "quality price idea look atmosphere value mood presentation",
)
_ROLES = _lists(
    "waiter chef manager waitress owner cook barman hostess",
    "receptionist porter manager cleaner owner concierge chef doorman",
    "director hero writer villain narrator heroine composer sidekick",
    "seller assistant courier supplier technician maker retailer provider",
    "author hero narrator villain writer heroine editor translator",
    "team company crew",
)
_VERBS = _lists(
    "visit/visits/visited sample/samples/sampled reserve/reserves/reserved",
    "visit/visits/visited book/books/booked reserve/reserves/reserved",
    "watch/watches/watched rewatch/rewatches/rewatched stream/streams/streamed",
    "use/uses/used buy/buys/bought test/tests/tested",
    "read/reads/read finish/finishes/finished reread/rereads/reread",
    "try/tries/tried choose/chooses/chose pick/picks/picked",
)

# One row a number of stars, from 1 to 5.
_ADJECTIVES = _lists(
    "awful terrible dreadful horrible appalling hopeless atrocious abysmal shocking unbearable "
    "disgraceful miserable",
    "poor disappointing weak dull mediocre underwhelming forgettable unimpressive tired clumsy "
    "shabby lacklustre",
    "average okay decent acceptable ordinary passable reasonable adequate tolerable standard "
    "unremarkable fair",
    "good nice pleasant lovely impressive enjoyable charming solid great pleasing likeable "
    "delightful",
    "excellent superb wonderful fantastic perfect brilliant outstanding amazing magnificent "
    "flawless exceptional marvellous",
)
_FEELINGS = _lists(
    "hate/hates/hated detest/detests/detested",
    "dislike/dislikes/disliked criticise/criticises/criticised",
    "accept/accepts/accepted tolerate/tolerates/tolerated",
    "like/likes/liked enjoy/enjoys/enjoyed",
    "love/loves/loved adore/adores/adored",
)
_WILLS = _lists(
    "refuse/refuses/refused decline/declines/declined",
    "hesitate/hesitates/hesitated",
    "agree/agrees/agreed",
    "plan/plans/planned intend/intends/intended",
    "promise/promises/promised rush/rushes/rushed",
)
# All begin with a consonant, because "a" comes before them.
_VERDICTS = _lists(
    "disaster nightmare disgrace",
    "disappointment letdown mistake",
    "compromise gamble puzzle",
    "pleasure success treat",
    "triumph delight marvel",
)

_ADVERBS = _lists("really truly rather quite honestly frankly genuinely surprisingly")
_SEASONS = _lists("summer winter week spring month autumn year weekend")
_PEOPLE = _lists("neighbours colleagues cousins parents relatives guests flatmates grandparents")
_LITTLE = _lists("little nothing")
_THINK = _lists("think/thinks/thought say/says/said feel/feels/felt believe/believes/believed")
_SAY = _lists("say/says/said agree/agrees/agreed know/knows/knew admit/admits/admitted")
_FIND = _lists("find/finds/found call/calls/called consider/considers/considered")
_ASSURE = _lists("tell/tells/told assure/assures/assured remind/reminds/reminded")

SLOTS: dict[str, Slot] = {
    "kind": Slot("category", _KINDS, "nouns"),
    "part": Slot("category", _PARTS, "nouns"),
    "role": Slot("category", _ROLES, "nouns"),
    "visit": Slot("category", _VERBS, "verbs", "verb"),
    "visit*": Slot("category", _VERBS, "verbs", "plural"),
    "good": Slot("stars", _ADJECTIVES, "adjectives"),
    "treat": Slot("stars", _VERDICTS, "adjectives"),
    "like": Slot("stars", _FEELINGS, "verbs", "verb"),
    "like*": Slot("stars", _FEELINGS, "verbs", "plural"),
    "plan": Slot("stars", _WILLS, "verbs", "verb"),
    "but": Slot("stars", _lists("and", "and", "and", "but", "but"), "fillers"),
    "think": Slot("neither", _THINK, "verbs", "verb"),
    "think*": Slot("neither", _THINK, "verbs", "plural"),
    "say*": Slot("neither", _SAY, "verbs", "plural"),
    "find*": Slot("neither", _FIND, "verbs", "plural"),
    "assure": Slot("neither", _ASSURE, "verbs", "verb"),
    "tell": Slot("neither", _lists("tell/tells/told"), "verbs", "verb"),
    "expect": Slot("neither", _lists("expect/expects/expected"), "verbs", "verb"),
    "spend": Slot("neither", _lists("spend/spends/spent"), "verbs", "verb"),
    "really": Slot("neither", _ADVERBS, "fillers"),
    "summer": Slot("neither", _SEASONS, "fillers"),
    "cousins": Slot("neither", _PEOPLE, "fillers"),
    "little": Slot("neither", _LITTLE, "fillers"),
    "who": Slot("neither", _lists("i/we/mum/friends"), "fillers", "person"),
    "she": Slot("neither", _lists("i/we/she/they"), "fillers", "person"),
    "her": Slot("neither", _lists("my/our/her/their"), "fillers", "person"),
    "them": Slot("neither", _lists("me/us/her/them"), "fillers", "person"),
    "is": Slot("neither", _lists("was/is"), "fillers", "tense"),
    "last": Slot("neither", _lists("last/every"), "fillers", "tense"),
}

# The first sentence names what is reviewed and who speaks ...
OPENINGS = (
    "{who} {visit} this {kind} {last} {summer} , and the {part} {is} {good} .",
    "{last} {summer} {who} {visit} this {kind} , and {she} {like} the {part} .",
    "when {who} {visit} this {kind} , {her} {cousins} {find*} the {part} {good} .",
    "{who} {assure} {her} {cousins} that this {kind} {is} {good} .",
    "this {kind} {is} {really} {good} , and {who} {tell} {her} {cousins} so .",
    "{who} {like} this {kind} because the {part} {is} {really} {good} .",
    "{who} {expect} {little} from this {kind} , {but} the {part} {is} {good} .",
    "judging by the {part} , {who} {think} this {kind} {is} {good} .",
)
# ... and the others go on from there. No two templates of a kind share a sentence.
FOLLOW_UPS = (
    "the {part} {is} {really} {good} .",
    "the {role} {is} {good} and so {is} the {part} .",
    "{she} {like} the {part} , and {her} {cousins} {like*} the {role} .",
    "{she} {think} the {part} {is} {really} {good} .",
    "{her} {cousins} {think*} the {role} {is} {good} .",
    "as for the {part} , {she} {like} it from the start .",
    "{she} {tell} {her} {cousins} about the {good} {part} .",
    "for {them} the {part} {is} a {treat} .",
    "and the {role} {is} just as {good} , believe it or not .",
    "the {part} {is} {good} , and {she} {like} the {role} as well .",
    "{she} {spend} the {summer} talking about the {good} {part} .",
    "{her} {cousins} {visit*} it too , and they {like*} the {part} .",
    "even the {part} {is} {good} , as {her} {cousins} {say*} .",
    "{she} {plan} to recommend it to {her} {cousins} .",
    "in the end it {is} the {part} that {she} {like} .",
    "if you ask {them} , the {role} {is} {really} {good} .",
)
