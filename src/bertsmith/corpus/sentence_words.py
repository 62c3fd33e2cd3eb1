"""The words by which `sentences` tells a stop that ends a sentence from one that does not."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Lower case; never the end of a sentence: what they abbreviate needs a word after it.
BEFORE_WORD = _words(
    "mr mrs ms messrs dr drs prof profs ste gen sen rep gov lt col capt cpt sgt cpl pvt maj brig adm cmdr insp "
    "det supt rev fr msgr hon pres ald coun cllr mt mme mlle dept dir e.g i.e eg ie vs cf viz ca approx esp incl "
    "excl resp deg a.k.a aka n.b p.s p.p.s"
)
# Lower case; not the end when a number follows: "No. 5", but "No. He left."
BEFORE_NUMBER = _words(
    "no nos nr fig figs eq eqs eqn thm lem prop cor def vol vols pp pg ch chap sec sect art op ed tab tbl ref "
    "refs ver para ext pop ps prov jan feb mar apr jun jul aug sep sept oct nov dec"
)
# Lower case; the end only when a word follows that commonly starts a sentence.
PERHAPS = _words(
    "etc inc ltd co corp jr sr bros llc plc ph.d est univ st ave blvd rd al et sp spp var subsp min max feat eds "
    "lit abbr ft lb lbs pct cts bbl oz tbsp tsp qt gal hr hrs yr yrs"
)
PERHAPS_IF_CAPITAL = _words(
    "Mass Calif Conn Penn Wash Ariz Colo Tenn Minn Mich Ill Ind Wis Ore Okla Fla Nev Tex Ala Ark Miss Mo Neb Va "
    "Ga Ky La Md Ph Mon Tue Tues Wed Thu Thur Thurs Fri Sat"
)
# What these stand for, in small letters: it decides how much must show that a sentence begins after one.
FIRMS = _words("inc ltd corp co llc plc")
TIMES = _words("a.m p.m")
ERAS = _words("b.c a.d b.c.e c.e")
MEASURES = _words("lb lbs oz tbsp tsp qt gal hr hrs yr yrs ft min pct cts bbl")
AFTER_NAME = _words("jr ave blvd rd")
DEGREES = _words("ph.d m.d b.a m.a b.s m.s m.b.a j.d")
PLACES = _words("u.s u.k u.n e.u u.s.a u.a.e d.c n.y n.j")
# Capitalised words before which they stand: "5 p.m. Eastern time", "Acme Inc. Chairman", "U.S. Army", "King Jr. Day".
AFTER_TIME = _words(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mondays Tuesdays Wednesdays Thursdays Fridays Saturdays "
    "Sundays January February March April May June July August September October November December Eastern Central "
    "Mountain Pacific Atlantic British Greenwich Local Coordinated Standard Universal"
)
OFFICES = _words(
    "Chairman Chairwoman Chair Chief President Vice Director Executive Senior Spokesman Spokeswoman Founder "
    "Co Ltd Inc Pty"
)
NAMED_AFTER = _words(
    "Day High School Boulevard Drive Park Bridge Memorial Hospital Library Center Church Station Award Prize Trophy "
    "Stadium Field Foundation Fund Museum House Building Hall Airport Theater Institute Collection"
)
INSTITUTIONS = _words(
    "Army Navy Marine Marines Air Coast Congress Senate House Supreme Court President Government Department Treasury "
    "Constitution Route Highway Interstate Open Census Bureau Secretary Ambassador Attorney Embassy Capitol Bank Steel "
    "Mint Senator Marshal Representative Consul Consulate Fleet Cavalry Infantry Airways Commander General Dollar "
    "Forces Troops Federal District State States United Charter Council Assembly History Representatives "
    "Marshals Senators"
)
# Small words after a capitalised one that make the two begin a clause: "Life was hard", "Bring a pen".
CLAUSAL = _words(
    "is was are were has had have will would can could may might must should did does became began came went fell rose "
    "a an the it its them me us him her your my our his their this"
)
LINKING = _words("of and or for in at on to by from with de von van der del la")
# A sentence that begins with one of these needs more before its abbreviation: "In 586 B.C. Jerusalem was burned."
LEADING = _words(
    "In At On By Around About From Until Before After Since During When While As If Because Although For With Near"
)
# Small words before a place's abbreviation that keep it from being the first part of a name that is a subject.
PLACING = _words(
    "to in into from of for with by across throughout through outside inside within against toward towards about like "
    "between under over near around on at entered left leaving leave visit visited enter"
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
_WIDE_SPEAKER = r"[^\s，。！？…：；、“”「」『』没沒无無]{0,14}?"
_WIDE_MANNER = r"[着著了完罢起道]?[来來]?(?:[一几幾][声聲句]|口[气氣])?"
_WIDE_HEARER = r"(?:[记記]者|大家|[我你他她][们們]?)?"
# The words of the second group may also take what was said after a comma; then a sentence begins: 他表示，法案很好。
WIDE_SAYING = re.compile(
    rf"{_WIDE_SPEAKER}(?:(?:(?<![知味街轨通报频渠隧赤难人铁])道|(?<![小传学据听])[说說説]|(?<![学访疑])[问問]|[{_SPEECH[6:]}])"
    rf"{_WIDE_MANNER}(?:(?=[\s，。！？,.!?]|$)|{_WIDE_HEARER}(?=[。！？]))|"
    r"(?:[自低耳][语語]|喃喃|嘟[囔哝噥]|嘀咕|咕[哝噥]|咆哮|[欢歡惊驚高]呼|呼[吁籲]|喝彩|[笑声聲]称|表示|解[释釋]|宣布|[补補]充|"
    r"回[应應]|催促|[哀央恳懇]求|抗[议議]|安慰|提醒|感[叹嘆慨]|[抱埋]怨|附和|打趣|调侃|冷[笑哼]|[怒呵训訓]斥|脱口而出|"
    r"告[诉訴](?=[记記我你他她大])|[应應哼回接](?=了?[一几幾][声聲句]))"
    rf"{_WIDE_MANNER}{_WIDE_HEARER}(?=[。！？.!?]|，[“「『]))"
)
# What stands between the two parts of a quotation: “我不去。”他摇摇头，“我累了。”
WIDE_BETWEEN = re.compile(
    r"(?:[他她我]|[^\s，。！？…：；、“”「」『』]{2})(?:(?![则則]|[认認][为為])[^\s，。！？…：；、“”「」『』]){2,12}，[“「『]"
)
WIDE_CLOSERS = {"“": "”", "「": "」", "『": "』"}
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
