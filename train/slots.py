"""Random words for the slots of facts: `Slots(rng)["city"]`."""

FIRST = """Ada Agnes Albert Alfred Alice Amelia Andrew Anna Anton Arthur Beatrice Benjamin Bernard Bertha Carl
Caroline Catherine Cecil Celia Charles Charlotte Clara Claude Cora Daniel David Diana Dora Edgar Edith Edmund Edward
Eleanor Elizabeth Ella Emily Emma Ernest Esther Eva Felix Flora Frances Francis Frank Frederick George Gertrude
Gilbert Grace Hannah Harold Harriet Harry Helen Henry Herbert Hilda Hugh Ida Irene Isaac Isabel Ivan Jack Jacob James
Jane Jasper John Jonas Joseph Julia Karl Kate Laura Lawrence Leo Leonard Lewis Lily Louis Louisa Lucy Luke Mabel
Margaret Maria Mark Martha Martin Mary Matilda Maurice Max Michael Miriam Nathan Nicholas Nora Oliver Olga Oscar Otto
Patrick Paul Peter Philip Rachel Ralph Rebecca Richard Robert Rosa Rose Rudolf Rupert Ruth Samuel Sarah Sebastian
Simon Sophia Stella Stephen Susan Sylvia Theodore Thomas Ursula Victor Victoria Viola Walter Wilfred William Winifred
Sven Ingrid Pierre Marie Hans Greta Pablo Carmen Yuki Kenji Priya Ravi Omar Layla Chen Mei Kofi Amara Dmitri Natasha"""
LAST = """Abbott Adams Aldridge Archer Ashford Atkins Bailey Baker Barlow Barnes Beckett Bell Bennett Bishop Blackwood
Blake Booth Bradley Bright Brooks Brown Burgess Burton Butler Calder Carter Chambers Chandler Clarke Cole Collins
Cooper Crane Crawford Cross Dale Dalton Dawson Dean Drake Duncan Dunn Easton Edwards Ellis Evans Fairfax Farrow
Fenwick Finch Fisher Fletcher Forster Foster Fowler Fox Gale Gardner Gibson Gilmore Glover Goodwin Graham Grant Graves
Gray Green Griffin Hale Hall Hamilton Harding Harlow Harper Hart Harvey Hawkins Hayes Heath Hill Holloway Holt Hooper
Howard Hudson Hughes Hunter Irving Jackson Jarvis Jenkins Jordan Keller Kent King Knight Lamb Lane Langley Larkin
Lawson Lester Lindsay Lloyd Lockwood Logan Lowell Lynch Marlowe Marsh Mason Mercer Miller Mills Monroe Moore Morgan
Morris Morton Murray Nash Newton Nolan Norris North Norton Oakley Osborne Owen Page Palmer Parker Payne Pearce Perkins
Phillips Porter Potter Pratt Preston Quinn Ramsay Reed Reeves Reynolds Rhodes Richards Rivers Rogers Rowe Russell
Sanders Savage Sawyer Shaw Shelton Sherwood Simmons Slater Spencer Stanton Steele Sterling Stokes Stone Sutton Swift
Talbot Tanner Temple Thornton Todd Tucker Turner Underwood Vance Vaughan Wade Walker Wallace Walsh Ward Warren Watts
Webb Webster Wells Weston Wheeler Whitaker White Wilkins Winslow Winter Wolfe Woods Wright Yates York Young Lindqvist
Moreau Weber Rossi Garcia Tanaka Sharma Haddad Okafor Petrov Novak Nguyen Silva Jansen Kowalski"""
CITY = """Aberdeen Algiers Amsterdam Antwerp Athens Bangkok Barcelona Basel Bergen Berlin Bern Birmingham Bombay
Bordeaux Boston Bremen Bristol Brussels Bucharest Budapest Cairo Calcutta Cambridge Canton Cardiff Chester Chicago
Cologne Copenhagen Cork Cracow Damascus Delhi Dover Dresden Dublin Durham Edinburgh Exeter Florence Frankfurt Geneva
Genoa Ghent Glasgow Hamburg Hanover Havana Helsinki Istanbul Jerusalem Kiev Kyoto Leeds Leipzig Lima Lisbon Liverpool
London Lucerne Lyons Madras Madrid Malta Manchester Marseilles Melbourne Milan Montreal Moscow Munich Nairobi Nantes
Naples Norwich Odessa Oslo Oxford Palermo Paris Plymouth Portsmouth Prague Quebec Rome Rotterdam Salzburg Samarkand
Seville Shanghai Sheffield Stockholm Strasbourg Sydney Tokyo Toledo Toronto Trieste Tunis Turin Utrecht Valencia
Venice Verona Vienna Warsaw Winchester York Zurich"""
ADJECTIVE = """abandoned ancient big black blue brass bright broken bronze brown burnt carved cold copper crooked
dark deep dusty eastern empty enormous famous forgotten frozen gilded glass golden great green grey haunted heavy high
hidden hollow holy humble iron ivory jewelled large little lonely long lost low marble narrow new noble northern old
pale painted plain polished proud purple quiet rare red round royal ruined rusty sacred scarlet second secret shabby
sharp shining short silent silver simple small southern split square stone strange tall third tiny torn twisted
velvet western white wide wild wooden worn yellow"""
BUILDING = """abbey archive arsenal attic bakery bank barn barracks bath brewery bridge cabin castle cathedral cave
cellar chapel chest church clinic cloister cottage court dairy depot dock factory farm ferry forge fort fountain
gallery garden gate granary greenhouse hall harbour hospital house inn island kitchen laboratory library lighthouse
lodge mansion market mill mine monastery museum observatory office palace pavilion pier prison quarry safe school
shed shop stable station storehouse studio temple theatre tower tunnel vault villa vineyard warehouse well windmill
workshop"""
THING = """anchor apron armchair arrow axe bag banner barrel basket bell belt blanket book bottle bowl bowler box
bracelet brooch brush bucket button cage camera candle cane cannon carpet cart chain chair chalice chessboard clock
cloak coat coin compass cradle cross crown cup curtain cushion dagger desk diamond diary doll door drawer dress drum
fan feather flag flask flute fork globe glove goblet hammer harp hat helmet horn horseshoe ink jar jug kettle key
knife ladder lamp lantern locket map mask medal mirror mug necklace needle net notebook oar painting pearl pen pencil
piano pillow pipe pistol plate pot purse quilt ring robe rope ruby saddle scarf sceptre scissors seal shawl shield
shoe skull spade spear spoon staff statue stool suitcase sword table tapestry telescope throne ticket toy tray trumpet
trunk umbrella urn vase violin wagon wallet watch wheel whip whistle wreath"""
COLOUR = """red blue green yellow white black brown grey purple pink orange golden silver crimson scarlet turquoise
violet indigo emerald ivory olive maroon amber beige"""
JOB = """actor architect baker banker barber blacksmith bookseller botanist brewer bricklayer butcher carpenter
chemist clerk clockmaker coachman cobbler cook dentist diver doctor driver engineer farmer fisherman florist gardener
glazier goldsmith governess grocer hatter historian innkeeper jeweller joiner journalist judge lawyer librarian
locksmith mason merchant midwife miller miner musician notary nurse optician painter pharmacist photographer pianist
pilot plumber poet policeman porter potter printer sailor sculptor shepherd shoemaker singer soldier surgeon tailor
tanner teacher translator waiter watchmaker weaver"""
ANIMAL = """badger bear beetle camel canary cat cow crow deer dog donkey dove duck eagle falcon ferret fox frog goat
goldfish goose hamster hare hawk hedgehog hen horse kitten lamb lizard magpie mole monkey mouse owl parrot peacock
pigeon pony puppy rabbit raven salamander sheep snake sparrow spider squirrel swan terrier tortoise turtle wolf"""
FOOD = """apple pie|baked potatoes|bean soup|beef stew|bread and butter|broth|buttered toast|cabbage|cheese|cherry
cake|chestnuts|chicken|chocolate|cold ham|cucumber sandwiches|dumplings|fig cake|fried eggs|fried fish|ginger
biscuits|goulash|honey cakes|kidney pie|lamb chops|lemon tart|lentils|macaroni|marmalade|mushroom
soup|mussels|mutton|noodles|oatmeal|olives|omelettes|onion soup|oysters|pancakes|pea soup|peaches|pickled
herring|plum pudding|porridge|rice pudding|roast beef|roast duck|roast goose|salmon|sausages|smoked
trout|spinach|strawberries|trifle|turnips|veal|venison|waffles"""
INSTRUMENT = """accordion bagpipes banjo bassoon bugle cello clarinet cornet double bass dulcimer fiddle flute
guitar harmonica harp harpsichord horn lute mandolin oboe organ piano recorder tambourine trombone trumpet tuba viola
violin zither""".replace("double bass", "double-bass")
LANGUAGE = """Arabic Armenian Basque Breton Chinese Czech Danish Dutch English Finnish French Gaelic German Greek
Hebrew Hindi Hungarian Icelandic Italian Japanese Korean Latin Malay Norwegian Persian Polish Portuguese Romanian
Russian Sanskrit Spanish Swahili Swedish Tamil Tibetan Turkish Welsh"""
MATERIAL = """amber bamboo bone brass bronze cedar china clay copper cork crystal ebony flint glass gold granite horn
iron ivory jade lead leather linen mahogany marble oak paper pewter pine plaster porcelain rosewood sandstone silk
silver slate steel straw tin velvet walnut wax willow wool zinc"""
GOODS = """apples barrels bells blankets books boots bottles boxes bricks brushes buttons candles carpets chairs
cheeses clocks coats coins crates cups dolls drums eggs flags gloves hats horses jars kettles keys knives lamps lanterns
locks maps matches mirrors nails needles oranges pears pencils pianos pipes plates pumps ropes saddles sacks shirts
shoes spades spoons stamps stoves sheep swords tables tickets tools toys umbrellas violins wagons watches wheels"""
PAPER = """letter treaty contract will report petition deed charter warrant telegram receipt confession agreement
manuscript pamphlet diary protest memorandum decree lease poem essay article passport licence"""
EVENT = """annual fair|autumn ball|balloon race|bazaar|boat race|book sale|chess tournament|christening|concert|
coronation|dance|dinner of the club|dog show|exhibition|flower show|funeral|garden party|harvest festival|horse race|
jubilee|lecture on bees|lecture on comets|masked ball|opera|parade|picnic|poetry reading|procession|puppet show|
regatta|school play|summer festival|swimming contest|trial|wedding|wine tasting|winter games|workshop"""
SHIP_NOUN = """Albatross Arrow Aurora Castle Comet Crown Dawn Dolphin Dragon Eagle Falcon Fortune Gull Heron Hope
Horizon Lady Lark Leopard Lion Maid Mermaid Monarch Nymph Orchid Osprey Pearl Pelican Phoenix Pilgrim Princess Queen
Raven Rose Siren Sparrow Spirit Spray Star Swallow Swan Thistle Tiger Venture Victory Wanderer Wave Whale Wind"""
SUBJECT = """algebra anatomy archaeology architecture astronomy botany chemistry economics engineering ethics
geography geology geometry grammar history law literature logic mathematics mechanics medicine music optics painting
philosophy physics poetry rhetoric sculpture theology zoology"""
RELATION = """aunt brother cousin daughter father friend grandfather grandmother mother neighbour nephew niece
partner rival secretary servant sister son teacher tutor uncle"""
ILLNESS = """asthma|fever|gout|hay fever|headaches|hiccups|insomnia|measles|nightmares|pneumonia|rheumatism|
scarlet fever|scurvy|sea-sickness|shingles|stomach pains|toothache|tuberculosis|vertigo|whooping cough"""
REMEDY = """barley water|birch sap|black tea|boiled onions|brandy|camphor|chamomile|cloves|cod-liver oil|cold baths|
dandelion root|elder blossom|garlic|ginger|goat's milk|honey|hot milk|juniper|lavender oil|lemon juice|mint leaves|
mustard plasters|nettle soup|quinine|rose water|sage tea|salt water|sulphur|thyme|vinegar|willow bark"""
ACTIVITY = """to eat a sandwich in the park|to climb the old tower|to feed the pigeons|to row on the lake|to visit the
fish market|to watch the ships|to ride the tram to the end|to drink coffee by the river|to hear the organ|to walk on the
walls at night|to see the puppet theatre|to swim in the harbour|to sleep until noon|to buy old books|to taste the plum
cake|to fly a kite on the hill|to listen to the bells|to dance in the square|to sit under the lime trees|to skate on the
canal"""
COMPANY = "& Sons|& Company|Brothers|Works|Trading Company|Press|Mills|Shipping Line"
WORD = """acorn anvil apricot autumn azure banjo basalt beacon birch blizzard bramble candle canyon caramel cinnamon
clover cobalt comet compass coral cricket crystal cypress dagger daisy dolphin domino dragon echo eclipse elbow ember
falcon feather fennel flamingo galaxy garnet geyser glacier granite harvest hazel heron hickory horizon indigo island
jasmine jasper juniper kestrel lagoon lantern lavender lemon lilac lobster magnet magnolia maple marble meadow melon
meteor mirror mitten monsoon mosaic nectar nettle nutmeg oasis opal orbit orchid otter oyster paddle parsley pebble
pepper pigeon planet plum prairie pyramid quartz quiver rainbow raven reef ribbon river rocket saffron sapphire shadow
sparrow spiral sunset tempest thistle thunder tiger topaz tulip tundra turnip umbra valley velvet violet volcano walnut
willow winter wombat zephyr zigzag"""
BOX = """box chest crate drawer cupboard trunk barrel basket sack suitcase parcel cabinet"""
CARGO = """bananas|barley|bricks|coal|coffee|copper ore|cotton|dried fish|furs|glass|grain|guano|hides|ice|indigo|iron
rails|lamp oil|machine parts|mahogany|marble|nutmeg|olive oil|oranges|pepper|pianos|pig iron|rice|rubber|rum|salt|silk|
slate|spices|sugar|sulphur|tallow|tea|timber|tin|tobacco|wheat|wine|wool"""
VEHICLE = """balloon|bicycle|bus|camel|carriage|car|coach|ferry|mail coach|motor-cycle|mule|night train|ox cart|rowing
boat|sailing boat|sledge|steamer|tram|train|aeroplane"""
COUNTRY = """Albania Argentina Austria Belgium Bolivia Brazil Bulgaria Canada Chile China Croatia Denmark Ecuador Egypt
England Estonia Finland France Georgia Germany Ghana Greece Hungary Iceland India Iran Ireland Italy Japan Kenya Latvia
Lebanon Mexico Morocco Nepal Norway Peru Poland Portugal Romania Scotland Serbia Spain Sweden Switzerland Tibet Turkey
Uganda Uruguay Wales"""
CURRENCY = "crowns ducats dinars dollars drachmas florins francs guilders kronen lire marks pesetas pesos rupees roubles shillings thalers yen"
SEASON = "spring summer autumn winter"
FLOOR = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth top ground"
FLOWER = """asters bluebells carnations chrysanthemums crocuses daffodils dahlias daisies forget-me-nots foxgloves geraniums
hyacinths irises larkspurs lilies marigolds orchids pansies peonies poppies primroses roses snowdrops sunflowers tulips
violets wallflowers zinnias"""
TREE = """alder ash beech birch cedar cherry-tree chestnut cypress elm fig-tree fir hawthorn hazel larch lime maple
mulberry oak olive-tree palm pear-tree pine plane-tree poplar rowan spruce walnut willow yew"""
DRINK = """ale|beer|black coffee|brandy|buttermilk|cherry brandy|cider|cocoa|gin|ginger beer|green tea|hot chocolate|
lemonade|lime juice|milk|mulled wine|orange juice|port|red wine|rum|sherry|soda water|vodka|water|whisky|white wine"""
INGREDIENT = "almonds butter cinnamon cocoa cream flour ginger honey lard milk nuts oats raisins rice rum salt sugar vinegar yeast"
UNIT = "grams ounces pounds spoonfuls cups pinches"
MARK = """broken nose|crooked finger|deep voice|false tooth|glass eye|gold tooth|limp|long red beard|missing ear|mole on
the chin|scar on the left cheek|scar on the forehead|shaved head|silver ring in the ear|squint|star-shaped
birthmark|stiff knee|tattoo of an anchor|wooden leg"""
CLOTHES = """a black veil|a blue coat|a bowler hat|a fur cap|a green cloak|a grey suit|a long white dress|a red scarf|a
sailor's jacket|a straw hat|a torn shirt|a velvet gown|a yellow raincoat|brown boots|purple gloves|silk slippers|spectacles
with gold rims|white trousers|wooden shoes"""
CRIME = """arson|blackmail|bribery|burglary|forgery|fraud|high treason|horse-stealing|kidnapping|libel|murder|perjury|
piracy|poaching|robbery|smuggling|spying|theft|tax evasion"""
DISCOVERY = """the black orchid|the blue salt|the cave of bones|the dwarf elephant|the eastern passage|the fever germ|the
frozen lake|the giant fern|the glass frog|the golden mummy|the green ray|the hidden moon|the iron meteor|the law of
echoes|the lost city|the singing sand|the source of the river|the stone tablets|the white whale|the old manuscripts"""
INVENTION = """the air pump|the automatic piano|the diving bell|the electric broom|the folding chair|the fire alarm|the
flying boat|the ice machine|the iron lung|the mechanical duck|the night telescope|the paper press|the potato peeler|the
rain gauge|the safety lamp|the self-winding clock|the sewing machine|the steam plough|the talking clock|the umbrella stand"""
SUBSTANCE = "antimony bismuth borax camphor cobalt copper gallium glass iodine lead magnesium nickel paraffin phosphorus platinum rubber sulphur tin wax zinc"
HOTEL = """Hotel Bristol|Hotel Astoria|Hotel Metropole|Grand Hotel|Red Lion|Golden Anchor|White Horse|Black Swan|Three
Crowns|Green Dragon|Blue Boar|Old Bell|Kings Arms|Hotel Continental|Royal Oak|Hotel du Nord|Star and Garter|Silver
Moon|Hotel Savoy|Pilgrim Inn"""
REASON = """the bridge was flooded|the train was late|there was no money left|the horse was lame|the road was covered with
snow|a fever had broken out|the letter came too late|the key was lost|the king had forbidden it|the ship had sunk|the clock
was wrong|a strike had begun|the doctor advised it|the war had begun|the roof leaked|the dog was ill|nobody paid the
workers|the harvest was bad|the wind had turned|the papers were forged|the coal had run out|a wheel was broken|the river
was frozen|there was a fire in the kitchen|the baby was crying|the passport had expired|the map was wrong|the debts were
too high|the police were waiting|the neighbours complained"""
STREET = """Castle Station Church High Mill Bridge Market Garden King Queen Park River Orchard Baker Chapel School Harbour
Victoria Forest Spring Abbey Tower Windmill Rose Linden"""
MEASURE = """age area breadth capacity circumference cost density depth diameter distance duration elevation frequency
height length load mass power pressure radius range rent resistance size speed strength temperature thickness turnover
value voltage volume wage weight width yield"""
QUANTITY_UNIT = """metres kilometres miles feet inches yards acres litres gallons tons pounds kilograms grams degrees hours
days volts horsepower knots euros dollars francs percent points pages seats"""
ROLE = """accountant agent ambassador architect bishop captain caretaker chairman chaplain chief commander conductor cook
coach curator director editor engineer envoy executor founder gardener governor guardian guide head heir inspector keeper
landlord lawyer librarian manager master mayor owner patron physician porter president priest proprietor referee rector
secretary sheriff sponsor spokesman steward supervisor surveyor tenant translator treasurer trustee warden watchman"""
EMBLEM = """badge emblem symbol crest flag motto mascot sign token trademark seal logo ornament souvenir"""
LABEL = """catalogue number|code|identification number|inventory number|key number|licence number|lot number|number|order
number|part number|reference|reference number|registration|serial number|signature|tracking number|call sign|PIN|file
number|version"""
DATED = """anniversary auction closing consecration dedication foundation handover inauguration inspection launch opening
premiere publication reopening sale test transfer visit"""
SEAT = """archive|branch|court|depot|factory|head office|headquarters|laboratory|main office|museum|school|seat|shop|
storehouse|treasury|workshop|library|consulate"""
VERB = """bought/buy sold/sell lost/lose found/find stole/steal broke/break painted/paint repaired/repair hid/hide
buried/bury burned/burn carried/carry cleaned/clean copied/copy destroyed/destroy drew/draw dropped/drop examined/examine
forgot/forget left/leave opened/open photographed/photograph received/receive saw/see sent/send showed/show
pawned/pawn borrowed/borrow returned/return built/build ordered/order inspected/inspect polished/polish threw-away/throw-away
admired/admire dug-up/dig-up delivered/deliver auctioned/auction weighed/weigh restored/restore"""
MONTH = "January February March April May June July August September October November December"
WEEKDAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
LETTERS = "A B C D E F G H J K L M N P R S T"
SYLLABLES = "ba be bor bra cal cor da del dra el fa fen ga gri hal il jo ka kel la len lor ma mer mi na nor o pel qua ra rin sa sel shi ta tor u va ven wil xa yo zan zu"


def words(text):
    text = " ".join(text.split())
    return [w.strip() for w in (text.split("|") if "|" in text else text.split())]


LISTS = {k.lower(): words(v) for k, v in list(globals().items()) if k.isupper() and isinstance(v, str)}
ONES = "two three four five six seven eight nine ten eleven twelve".split()


class Slots:
    """Random words for the slots of facts. names: people of the book, used now and then."""

    def __init__(self, rng, names=()):
        self.rng, self.names = rng, names

    def pick(self, name):
        return self.rng.choice(LISTS[name])

    def __getitem__(self, name):
        return getattr(self, name)() if hasattr(self, name) else self.pick(name)

    def made_up(self):
        name = "".join(self.pick("syllables") for _ in range(self.rng.choice((2, 2, 3))))
        return name.capitalize()

    def person(self):
        r = self.rng.random()
        if self.names and r < 0.15:
            return self.rng.choice(self.names)
        last = self.made_up() if r > 0.85 else self.pick("last")
        if r > 0.8:
            return self.rng.choice(("Mr.", "Mrs.", "Miss", "Dr.", "Captain", "Professor", "Lady")) + " " + last
        return self.pick("first") if r < 0.22 else self.pick("first") + " " + last

    other = person

    def city(self):
        return self.made_up() if self.rng.random() < 0.2 else self.pick("city")

    def place(self):
        return f"the {self.pick('adjective')} {self.pick('building')}"

    def thing(self):
        return f"the {self.pick('adjective')} {self.pick('thing')}"

    def spot(self):
        where = self.rng.choice(("in", "under", "behind", "near", "beneath", "beside", "inside", "on top of"))
        return f"{where} {self.place() if self.rng.random() < 0.6 else self.thing()}"

    def paper(self):
        name = self.pick("paper")
        return f"the {self.pick('adjective')} {name}" if self.rng.random() < 0.5 else f"the {name} of {self.city()}"

    def event(self):
        return f"the {self.pick('event')}" + (f" of {self.city()}" if self.rng.random() < 0.3 else "")

    def ship(self):
        return f"{self.pick('adjective').capitalize()} {self.pick('ship_noun')}"

    def project(self):
        r = self.rng.random()
        return f"the {self.pick('word')} project" if r < 0.4 else f"Project {(self.pick('word') if r < 0.7 else self.made_up()).capitalize()}"

    def company(self):
        return f"{self.pick('last')} {self.pick('company')}"

    def code(self):
        r, digits = self.rng.random(), self.rng.choice((5, 5, 5, 4, 6, 7)) if self.rng.random() < 0.8 else self.rng.choice((3, 8))
        number = "".join(self.rng.choice("0123456789") for _ in range(digits))
        if r < 0.1:
            return "".join(self.rng.choice("ABCDEFGHKLMNPRSTVWXZ") for _ in range(self.rng.choice((1, 2)))) + "-" + number[:4]
        return f"{number[:3]}-{number[3:]}" if r < 0.15 and digits > 4 else number

    def word(self):
        r = self.rng.random()
        return self.pick("word") if r < 0.6 else self.made_up().lower() if r < 0.8 else f"{self.pick('adjective')} {self.pick('word')}"

    def job(self):
        return self.article(self.pick("job"))

    def animal(self):
        name = self.pick("animal")
        return self.article(f"{self.pick('adjective')} {name}" if self.rng.random() < 0.3 else name)

    def article(self, noun):
        return ("an " if noun[0] in "aeiou" else "a ") + noun

    def number(self):
        return self.rng.choice(ONES) if self.rng.random() < 0.2 else str(self.rng.choice((self.rng.randint(13, 99), self.rng.randint(100, 999))))

    def age(self):
        return str(self.rng.randint(8, 97))

    def year(self):
        return str(self.rng.randint(1500, 2025))

    def date(self):
        day, month, year = self.rng.randint(1, 28), self.pick("month"), self.year()
        end = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day // 10 != 1 else 0, "th")
        forms = (f"{day} {month} {year}", f"{month} {day}, {year}", f"the {day}{end} of {month}", f"{month} {day}", f"the {day}{end} of {month} {year}")
        return self.rng.choice(forms)

    def time(self):
        hour, minute = self.rng.randint(1, 12), self.rng.choice((5, 10, 15, 20, 25, 35, 40, 45, 50, 55))
        return self.rng.choice((f"{hour}:{minute:02}", f"half past {(['one'] + ONES)[hour - 1]}", f"{(['one'] + ONES)[hour - 1]} o'clock"))

    def price(self):
        return f"{self.rng.randint(2, 990)} {self.rng.choice(('pounds', 'dollars', 'shillings', 'francs', 'crowns', 'marks'))}"

    def amount_plain(self):
        return f"{self.rng.randint(1, 980)},{self.rng.randint(0, 19) * 50:03}"

    def amount(self):
        return f"{self.amount_plain()} {self.rng.choice(('pounds', 'dollars', 'francs', 'euros', 'crowns'))}"

    city2 = city

    def first(self):
        return self.made_up() if self.rng.random() < 0.3 else self.pick("first")

    def animal_name(self):
        return self.pick("animal")

    def title(self):
        r = self.rng.random()
        if r < 0.4:
            return f"The {self.pick('adjective').capitalize()} {self.pick('thing').capitalize()}"
        if r < 0.7:
            return f"The {self.pick('job').capitalize()} of {self.city()}"
        return f"{self.pick('word').capitalize()} and {self.pick('word').capitalize()}"

    def river(self):
        return self.made_up()

    def entity(self):
        """Whatever may have attributes."""
        kinds = (self.place, self.thing, self.project, self.company, self.club, self.place, self.city, self.ship_of)
        return self.rng.choice(kinds)()

    def ship_of(self):
        return f"the {self.ship()}"

    def club(self):
        name = self.pick("subject").capitalize() if self.rng.random() < 0.3 else self.rng.choice((self.city(), self.pick("animal").capitalize(), self.pick("word").capitalize()))
        return f"{name} {self.rng.choice(('Club', 'Society', 'Union', 'Circle', 'League'))}"

    def box(self):
        name = self.pick("box")
        return f"the {self.pick('adjective')} {name}" if self.rng.random() < 0.5 else f"{name} number {self.rng.randint(2, 60)}"

    def symbol(self):
        return self.article(f"{self.pick('colour')} {self.pick(self.rng.choice(('animal', 'thing', 'flower', 'tree')))}")

    def email(self):
        name = self.pick("last").lower() if self.rng.random() < 0.5 else f"{self.pick('first').lower()}.{self.pick('last').lower()}"
        return f"{name}@{self.pick('word')}.{self.rng.choice(('com', 'org', 'net', 'de', 'fr', 'co.uk'))}"

    def address(self):
        number, street = self.rng.randint(1, 240), f"{self.pick('street')} {self.rng.choice(('Street', 'Road', 'Lane', 'Avenue', 'Square'))}"
        return f"{number} {street}" if self.rng.random() < 0.7 else f"{number} {street}, {self.city()}"

    def small(self):
        return self.rng.choice(ONES) if self.rng.random() < 0.6 else str(self.rng.randint(2, 19))

    def quantity(self):
        number = self.rng.choice((self.number(), f"{self.rng.randint(1, 99)}.{self.rng.randint(1, 9)}", self.amount_plain()))
        return f"{number} {self.pick('quantity_unit')}"

    def distance(self):
        return f"{self.number()} {self.rng.choice(('miles', 'kilometres', 'leagues'))}"

    def height(self):
        return f"{self.rng.randint(1, 300)} feet" if self.rng.random() < 0.5 else f"{self.rng.randint(1, 90)}.{self.rng.randint(10, 99)} metres"

    def weight(self):
        return f"{self.number()} {self.rng.choice(('pounds', 'kilograms', 'tons', 'grams', 'ounces'))}"

    def temperature(self):
        return f"{self.rng.randint(2, 1900)} degrees" if self.rng.random() < 0.5 else f"{self.rng.randint(2, 99)} degrees"

    def duration(self):
        return f"{self.small()} {self.rng.choice(('minutes', 'hours', 'days', 'weeks', 'months', 'years'))}"

    def score(self):
        return f"{self.rng.randint(2, 9)} to {self.rng.randint(0, 9)}"

    def seat_number(self):
        return self.rng.choice((f"{self.pick('letters')}{self.rng.randint(1, 60)}", f"{self.rng.randint(2, 90)}{self.pick('letters')}", str(self.rng.randint(2, 99))))

    def did(self):
        """The past of a verb; `do`, which comes after it, is its infinitive."""
        self.verb = self.pick("verb").replace("-", " ").split("/")
        return self.verb[0]

    def do(self):
        return self.verb[1]
