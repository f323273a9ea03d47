"""Misspells words: doubles an inner letter or swaps two neighbours, but never makes another English word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .text import WORD, Around, listed, prose, quoted, within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

SHARE = 0.06
"""The share of words of a text that are misspelt (at least one is)."""

# A whole token in lower case with only punctuation beside it: no name, number, hyphen, unit or code.
_ELIGIBLE = re.compile(r"(?<![^\s(])[a-z]{5,}(?=[.,;:?!)]*(?:\s|$))")
# Words on which the meaning of a question often depends; they keep their spelling.
_SPARED = listed(
    """
    never neither nothing nobody nowhere without cannot except unless hardly barely scarcely opposite
    false every everyone everything several another others enough whole entire either other least almost
    exactly average total altogether together combined difference remaining percent percentage minimum
    maximum double triple twice thrice halves quarter quarters third thirds fourth fifth sixth seventh
    eighth ninth tenth dozen dozens couple pairs three seven eight eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
    hundred hundreds thousand thousands million millions billion fewer above below before after between
    under first second right north south forward backward backwards forwards clockwise yesterday today
    tomorrow valid invalid plausible implausible where which whose while these those their there
    everybody somebody anybody someone anyone anything something always sometimes often usually rarely
    seldom mostly partly maybe perhaps possibly likely unlikely equal equally unequal correct incorrect
    wrong doubles doubled triples tripled halved squared cubed monday tuesday wednesday thursday friday
    saturday sunday january february march april august september october november december
    """
)
# Endings of comparatives and superlatives.
_COMPARES = re.compile(r"(?:er|est)s?$")
# Words that a swap or a doubling can make from another word. They were found by trying both on every
# lower-case word of five or more letters in Debian's list american-english (2020.12.07).
_TWINS = listed(
    """
    accouterments accoutrements aliens alines amphitheatres angels angles appalls bards barely barked
    barking barley beats belated betas bleated blots bolts brads braked braking brunt bugle bugled bugles
    bugling bulge bulged bulges bulging burnt calms carbs carps carted carting carve carved carves carving
    carvings casual casually causal causally centimetres centres cervices clams clods clots coals codes
    coeds colas colds colts compiled compiles complaint compliant complied complies concerted concerting
    concreted concreting corny corps crabs craps crated crating crave craved craves craving cravings creeps
    crepes crevices crony crops crust curst dairies dairy diaries diary distills dullness enrollment
    enrollments enrolls enthralls extolls farmed farming farts fiefs field fiend fifes filed files fined
    fired fires flied flies forth framed framing frats fried fries froth fulfillment fulfills fullness
    gabble gabbled gabbles garbs gilded gilding gingko gingkoes gingkos ginkgo ginkgoes ginkgos girds girts
    glided gliding goitres grabs granddad granddads grids grits gusty gutsy idylls infarction infraction
    installment installments installs instills kilometres lairs liars liens lines lions liras litres loins
    lotus louts mantelpiece mantelpieces mantels mantlepiece mantlepieces mantles marital martial meets
    metes metres miens millilitres millimetres mines minuets minutes nickels nickles parted parting pasties
    pasty patios patois patsies patsy perfect perfects pilaffs piled piles plaint pliant plied plies pluses
    poises posies prated prating prefect prefects pulses repertoires repertories retired retires retried
    retries riffle riffled riffles riffling rogue rogues rouge rouges rubble sabres sacred salted salting
    salts salve salved salves salving satin scared schlepps sherd sherds shlepps shred shreds shrieks
    shrikes signed signing signs silly silts silvered silvering singed singing sings sites skillful
    skullduggery slated slating slats slave slaved slaves slaving slily slits slivered slivering sloes soles
    solitaires solitaries somberly sombrely spilt split stain sties tarps taxiing teazels teazles theatres
    there thickset thralldom three tilted tilting timbres tired tires tiros titled titling tittle tittles
    toady today torts torus tours trail trailed trailing trails traps trial trialed trialing trials tried
    tries trios trots unite united unites untie untied unties warps whirrs wield wiled willful willfully
    willfulness worth wraps wroth
    """
)


def typos(text: str, rng: Random, around: Around) -> str | None:
    """Misspells 6 % of the words of a text, or fewer if too few words are suitable.

    Args:
        text: the question or its context; options and quotations in it are not changed.
        rng: draws the words and how each is misspelt.
        around: words that must not change, and words that must not result.

    Returns:
        The changed text; None if no word is suitable.
    """
    end, inside = prose(text), quoted(text)
    found = [
        (match, forms)
        for match in _ELIGIBLE.finditer(text, 0, end)
        if not within(match.start(), inside) and (forms := _misspellings(match[0], around))
    ]
    if not found:
        return None
    count = max(1, round(SHARE * len(WORD.findall(text[:end]))))
    drawn = {match.start(): rng.choice(forms) for match, forms in rng.sample(found, min(count, len(found)))}
    return _ELIGIBLE.sub(lambda match: drawn.get(match.start(), match[0]), text)


def _misspellings(word: str, around: Around) -> list[str]:
    if word in _SPARED or word in around.spared or _COMPARES.search(word):
        return []
    return [one for one in _forms(word) if one not in around.vocabulary and one not in _TWINS]


def _forms(word: str) -> Iterator[str]:
    """All misspellings of a word; first and last letters stay, and no letter comes three times in a row."""
    for at in range(1, len(word) - 1):
        before, letter, after = word[at - 1 : at + 2]
        # "hoping" would become "hopping", and "chose" "choose".
        between_vowels = letter not in "aeiouy" and before in "aeiouy" and after in "aeiouy"
        if letter not in (before, after) and letter not in "eo" and not between_vowels:
            yield word[:at] + letter + word[at:]
        if at < len(word) - 2 and letter != after:
            yield word[:at] + after + letter + word[at + 2 :]
