"""The words by which `sentences` tells a stop that ends a sentence from one that does not."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Lower case; never the end of a sentence: what they abbreviate needs a word after it.
BEFORE_WORD = _words(
    "mr mrs ms messrs dr drs prof profs ste gen sen rep gov lt col capt cpt sgt cpl pvt maj brig adm cmdr insp "
    "det supt rev fr msgr hon pres ald coun cllr mt mme mlle dept dir e.g i.e eg ie vs cf viz ca approx esp incl "
    "excl resp a.k.a aka n.b p.s p.p.s"
)
# Lower case; not the end when a number follows: "No. 5", but "No. He left."
BEFORE_NUMBER = _words(
    "no nos nr fig figs eq eqs eqn thm lem prop cor def vol vols pp pg ch chap sec sect art op ed tab tbl ref "
    "refs ver para ext pop ps prov jan feb mar apr jun jul aug sep sept oct nov dec"
)
# Lower case; the end only when a word follows that commonly starts a sentence.
PERHAPS = _words(
    "etc inc ltd co corp jr sr bros llc plc ph.d est univ st ave blvd rd al et sp spp var subsp min max feat eds "
    "lit abbr ft lb lbs oz tbsp tsp qt gal hr hrs yr yrs"
)
PERHAPS_IF_CAPITAL = _words(
    "Mass Calif Conn Penn Wash Ariz Colo Tenn Minn Mich Ill Ind Wis Ore Okla Fla Nev Tex Ala Ark Miss Mo Neb Va "
    "Ga Ky La Md Ph Mon Tue Tues Wed Thu Thur Thurs Fri Sat"
)
ABBREVIATIONS = BEFORE_WORD | BEFORE_NUMBER | PERHAPS

# Words that a capital letter makes the start of a sentence, because they are no names. The adverbs and participles are
# those that start a sentence most often in the English Wikipedia and are written small elsewhere.
STARTERS = _words(
    "A About After All Also Although Among An And Another Are As At Because Before Both But By Can Could Did Do "
    "Does Due During Each Even Every Everyone Finally First For From Had Has Have He Her Here His How However I "
    "If In Instead Is It Its Just Later Let Like Many Meanwhile More Most My Neither Nevertheless No Nobody Not "
    "Nothing Now Of On Once One Only Or Other Others Our Over Perhaps Please Second See She Should Similarly "
    "Since So Some Soon Still Such Than That The Their Then There Therefore These They This Those Though Three "
    "Through Throughout Thus To Today Two Under Unlike Until Upon Was We Were What When Where Whether Which While "
    "Who Whose Why Will With Within Without Would Yet You Your Accordingly According Additional Additionally "
    "Afterwards Again Against Almost Along Already Alternatively Amongst Any Anyone Apart Approximately Around "
    "Aside Based Beginning Being Below Besides Between Beyond Certain Compared Consequently Conversely Currently "
    "Depending Despite Different Earlier Especially Eventually Everything Except Few Five Following Four Further "
    "Furthermore Generally Given Having Hence Historically Immediately Indeed Initially Inside Lastly Less "
    "Likewise Maybe Moreover Much Nearly Never Next Nonetheless None Nor Normally Notable Notably Numerous "
    "Occasionally Often Originally Otherwise Outside Overall Particularly Previously Rather Really Recent "
    "Recently Regardless Roughly Several Shortly Similar Six Sometimes Someone Something Specifically Starting "
    "Subsequently Thereafter Together Tomorrow Traditionally Typically Ultimately Unfortunately Using Usually "
    "Various Very Well Whatever Whereas Whilst Yesterday Add Ask Call Come Consider Give Go Keep Make Note Put "
    "Suppose Take Tell Try Turn Use"
)
# Written small after a stop, these go on: the stop belonged to an abbreviation that no table has, or to a shout.
CONTINUING = _words("of than")
_AFTER_SHORT = _words("to from by at as with in on for per long wide high tall old")
CONTINUING_AFTER_SHORT = (_AFTER_SHORT | _words("and or nor"), _AFTER_SHORT)
"""The same after a word of up to four letters: first after a shout or a question, then after a full stop."""
# Lower case; what a single letter names: "Plan B."
LABELLED = _words(
    "appendix area axis block building category class column division exhibit figure gate grade group hall "
    "hepatitis letter level model option part phase plan point room row schedule section serie side table team "
    "terminal type unit vitamin wing zone"
)
# Words of saying that may follow a quotation and its speaker: "Stop!" Anna cried.
SAYING = re.compile(
    r"\s*+(?:I|((?!I\b)[A-Z][\w'’-]*+)\.?+(?: [A-Z][\w'’-]*+\.?+){0,2}) "
    r"(?:said|says|asked|asks|cried|cries|shouted|yelled|called|replied|answered|exclaimed|whispered|screamed|murmured|"
    r"muttered|wondered|demanded|added|insisted|repeated|wrote|sighed|laughed|growled|snapped|roared|begged)\b"
)

_SPEECH = "说説說道问問喊叫答嚷吼骂罵叹嘆曰云"
WIDE_INTRODUCERS = frozenset(_SPEECH + "着著")
"""Chinese characters before an opening quote after which the quotation stands as if a colon did."""
# Who said it, after a quotation: a few characters, a word of saying, a pause. 知道 or 小说 is not such a word.
WIDE_SAYING = re.compile(
    r"[^\s，。！？…：；、“”「」『』没沒无無]{0,14}?"
    rf"(?:(?<![知味街轨通报频渠隧赤难人铁])道|(?<![小传学据听])[说說説]|(?<![学访疑])[问問]|[{_SPEECH[6:]}])"
    r"(?:[着著了完罢起道]?[来來]?(?:[一几][声聲句])?)(?=[\s，。！？,.!?]|$)"
)
# What goes on after a shout or a question that was quoted: 的, 和, 是, 这三个字; in Japanese the particles.
WIDE_CONTINUES = re.compile(
    r"[的之和及是とのはがをもにで]|[与與](?!此)|或(?![许許])|等[字词詞语語口话話歌等]|"
    r"[这這那][一两兩几幾三四五]?[个個句声聲种種话話]|[一两兩二三四五六七八九十几幾\d]+[个個句字声聲词詞语語]"
)
WIDE_PARTICLES = frozenset("的之和及等")
"""Characters with which a sentence goes on and seldom begins."""
WIDE_PREDICATES = frozenset("都就也還还便却卻")
"""Characters with which a sentence goes on after a quotation that was one of its words."""
WIDE_STARTERS = frozenset("我你您他她它这這那谁誰咱但可不请請快有没沒今明昨所因如")
"""Characters that commonly start a Chinese sentence, and are seldom the next word after a name."""
WIDE_HESITATION = _words(
    "这个 那个 就是 但是 可是 而且 不过 然后 因为 所以 如果 只是 还是 或者 這個 那個 不過 然後 因為 還是"
)
"""Words before an ellipsis after which a Chinese sentence is not over."""
