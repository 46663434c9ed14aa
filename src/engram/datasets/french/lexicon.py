"""The words and their forms: nouns, adjectives, verbs and the rest.

Kinds of nouns keep the sentences sensible: p(erson), c(hild), a(nimal), f(ood), t(hing)
and (p)l(ace). They also keep out what French reads otherwise: `vieille fille` is a
spinster, `grand homme` a great man, so `old` is not of children nor `large` of persons.
"""

from typing import NamedTuple


class Noun(NamedTuple):
    """A noun: its kind, both numbers, its gender in French."""

    kind: str
    english: str
    englishes: str
    french: str
    frenches: str
    gender: str  # m or f


class Adjective(NamedTuple):
    """An adjective: the kinds of nouns that it may describe, and how it agrees."""

    english: str
    of: str
    m: str
    f: str
    ms: str
    fs: str

    def french(self, gender: str, plural: bool) -> str:
        """Returns the form that agrees with a noun."""
        return agreeing((self.m, self.f, self.ms, self.fs), gender, plural)


class Verb(NamedTuple):
    """A verb in the present: the kinds of its object (`-` has none), and its forms."""

    english: str
    third: str
    of: str
    je: str
    il: str
    nous: str
    vous: str
    ils: str

    def french(self, person: int) -> str:
        """Returns the form of a person, from `JE` to `ILS`."""
        return (self.je, self.il, self.nous, self.vous, self.ils)[person]


class Pronoun(NamedTuple):
    """A subject of one word: the person of its verb, its gender or nothing."""

    english: str
    french: str
    person: int
    gender: str


def agreeing(forms: tuple[str, ...], gender: str, plural: bool) -> str:
    """Returns the form of a gender and number from masculine, feminine and plurals."""
    return forms[(gender == "f") + 2 * plural]


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.strip().splitlines()]


NOUNS = [
    Noun(*row)
    for row in _rows("""
        p  man       men        homme       hommes       m
        p  lady      ladies     dame        dames        f
        p  king      kings      roi         rois         m
        p  queen     queens     reine       reines       f
        p  nurse     nurses     infirmière  infirmières  f
        p  baker     bakers     boulanger   boulangers   m
        c  boy       boys       garçon      garçons      m
        c  girl      girls      fille       filles       f
        c  child     children   enfant      enfants      m
        a  cat       cats       chat        chats        m
        a  dog       dogs       chien       chiens       m
        a  bird      birds      oiseau      oiseaux      m
        a  mouse     mice       souris      souris       f
        a  horse     horses     cheval      chevaux      m
        a  cow       cows       vache       vaches       f
        a  bee       bees       abeille     abeilles     f
        a  donkey    donkeys    âne         ânes         m
        a  goat      goats      chèvre      chèvres      f
        f  apple     apples     pomme       pommes       f
        f  pear      pears      poire       poires       f
        f  orange    oranges    orange      oranges      f
        f  egg       eggs       œuf         œufs         m
        f  cake      cakes      gâteau      gâteaux      m
        t  book      books      livre       livres       m
        t  letter    letters    lettre      lettres      f
        t  ball      balls      balle       balles       f
        t  flower    flowers    fleur       fleurs       f
        t  hat       hats       chapeau     chapeaux     m
        t  key       keys       clé         clés         f
        t  clock     clocks     horloge     horloges     f
        t  umbrella  umbrellas  parapluie   parapluies   m
        l  mat       mats       tapis       tapis        m
        l  table     tables     table       tables       f
        l  chair     chairs     chaise      chaises      f
        l  bed       beds       lit         lits         m
        l  box       boxes      boîte       boîtes       f
        l  house     houses     maison      maisons      f
        l  garden    gardens    jardin      jardins      m
        l  tree      trees      arbre       arbres       m
        l  school    schools    école       écoles       f
        l  boat      boats      bateau      bateaux      m
        l  island    islands    île         îles         f
    """)
]
BEFORE = [  # adjectives before a French noun
    Adjective(*row)
    for row in _rows("""
        small      pcaftl  petit  petite  petits  petites
        big        aft     gros   grosse  gros    grosses
        large      l       grand  grande  grands  grandes
        beautiful  pcaftl  beau   belle   beaux   belles
        pretty     aftl    joli   jolie   jolis   jolies
        old        paftl   vieux  vieille vieux   vieilles
        young      pca     jeune  jeune   jeunes  jeunes
        good       af      bon    bonne   bons    bonnes
    """)
]
AFTER = [  # adjectives after it
    Adjective(*row)
    for row in _rows("""
        red        ftl     rouge    rouge     rouges    rouges
        yellow     ftl     jaune    jaune     jaunes    jaunes
        green      ftl     vert     verte     verts     vertes
        blue       ftl     bleu     bleue     bleus     bleues
        black      atl     noir     noire     noirs     noires
        white      atl     blanc    blanche   blancs    blanches
        grey       atl     gris     grise     gris      grises
        happy      pca     heureux  heureuse  heureux   heureuses
        sad        pca     triste   triste    tristes   tristes
        tired      pca     fatigué  fatiguée  fatigués  fatiguées
        strange    pcaftl  étrange  étrange   étranges  étranges
        clean      pcaftl  propre   propre    propres   propres
    """)
]
VERBS = [
    Verb(*row)
    for row in _rows("""
        sleep  sleeps   -       dors      dort      dormons     dormez     dorment
        sing   sings    -       chante    chante    chantons    chantez    chantent
        run    runs     -       cours     court     courons     courez     courent
        dance  dances   -       danse     danse     dansons     dansez     dansent
        work   works    -       travaille travaille travaillons travaillez travaillent
        wait   waits    -       attends   attend    attendons   attendez   attendent
        laugh  laughs   -       ris       rit       rions       riez       rient
        see    sees     pcaftl  vois      voit      voyons      voyez      voient
        find   finds    pcaftl  trouve    trouve    trouvons    trouvez    trouvent
        draw   draws    pcaftl  dessine   dessine   dessinons   dessinez   dessinent
        watch  watches  pcaftl  regarde   regarde   regardons   regardez   regardent
        hear   hears    pca     entends   entend    entendons   entendez   entendent
        help   helps    pca     aide      aide      aidons      aidez      aident
        call   calls    pca     appelle   appelle   appelons    appelez    appellent
        follow follows  pca     suis      suit      suivons     suivez     suivent
        push   pushes   pcal    pousse    pousse    poussons    poussez    poussent
        wash   washes   caf     lave      lave      lavons      lavez      lavent
        want   wants    aft     veux      veut      voulons     voulez     veulent
        buy    buys     aftl    achète    achète    achetons    achetez    achètent
        sell   sells    aftl    vends     vend      vendons     vendez     vendent
        lose   loses    ft      perds     perd      perdons     perdez     perdent
        eat    eats     f       mange     mange     mangeons    mangez     mangent
    """)
]
BE = Verb("are", "is", "-", "suis", "est", "sommes", "êtes", "sont")
JE, IL, NOUS, VOUS, ILS = range(5)  # persons of a verb
PRONOUNS = [
    Pronoun("I", "je", JE, ""),
    Pronoun("he", "il", IL, "m"),
    Pronoun("she", "elle", IL, "f"),
    Pronoun("we", "nous", NOUS, ""),
    Pronoun("you", "vous", VOUS, ""),
    Pronoun("they", "ils", ILS, "m"),
]
DETERMINERS = {  # masculine, feminine, and their plurals
    "the": ("le", "la", "les", "les"),
    "a": ("un", "une"),
    "this": ("ce", "cette"),
    "my": ("mon", "ma", "mes", "mes"),
    "these": ("", "", "ces", "ces"),
    "two": ("", "", "deux", "deux"),
}
PREPOSITIONS = {  # and the places to which they lead
    "on": ("sur", "mat table chair bed box boat island"),
    "in": ("dans", "bed box house garden tree school boat"),
    "under": ("sous", "mat table chair bed tree"),
    "behind": ("derrière", "table chair bed box house tree school"),
    "in front of": ("devant", "table chair bed box house tree school"),
}
# What a word turns into before a vowel; every h here is mute.
BEFORE_A_VOWEL = {
    **{"le": "l'", "la": "l'", "je": "j'", "ne": "n'", "de": "d'"},
    **{"ce": "cet", "ma": "mon"},
}
ONE_BEFORE_A_VOWEL = {"beau": "bel", "vieux": "vieil"}  # adjectives of one, not of two
VOWELS = tuple("aeiouhâéêîœ")
ENGLISH_VOWELS = tuple("aeiou")
