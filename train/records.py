"""Records to plant in texts: lines that give things numbers and codes, and what may be asked about them.

    statements, turns = several(random.Random(7), 12)  # turns: [(question, answer)]

All records of a text are of one field and one wording, so that the name alone tells them apart. Answers are whole
sentences, or the value alone where the question does not say how to begin. What quality/tasks plants has other
fields and questions; it never stands here.
"""
from slots import Slots

FIELDS = """access code|account number|archive number|badge number|call number|case number|catalogue number|combination|customs
number|door code|file number|inventory number|licence number|membership number|order number|parcel number|phone number|post code|
reference number|room key|seal number|serial number|shelf mark|ticket number|token|vault code|voucher number"""
FIELDS = [" ".join(field.split()) for field in FIELDS.split("|")]
# {f} field, {n} name, {N} at a sentence's begin, {v} value.
STATEMENTS = ("The {f} of {n} is {v}.", "The {f} for {n} is {v}.", "{N} has the {f} {v}.", "Note: {v} is the {f} of {n}.", "{F} of {n}: {v}")
QUESTIONS = ("What is the {f} of {n}?", "Tell me the {f} of {n}.", "Which {f} has {n}?", "Look up the {f} of {n}.")
BEGINS = (" Begin with: {a}", " Start your answer with: {a}", " Your answer shall start like this: {a}")
HEX = "0123456789abcdef"


def code(rng, form):
    """x: a hexadecimal digit, 9: a digit, A: a letter."""
    sets = {"x": HEX, "9": "0123456789", "A": "ABCDEFGHJKLMNPRSTUVWXYZ"}
    return "".join(rng.choice(sets[c]) if c in sets else c for c in form)


def form(rng):
    r = rng.random()
    if r < 0.5:
        return rng.choice("123456789") + "9" * rng.randint(3, 8)
    if r < 0.7:
        return "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
    return rng.choice(("xxxxxxxx", "xxxx-xxxx-xxxx", "AA-9999", "A99999", "999-999-999", "AAA 999", "xx:xx:xx:xx:xx:xx"))


def capital(text):
    return text[0].upper() + text[1:]


def name(rng, shape):
    """What has a value: a thing, a place, a person, or a code itself."""
    source = Slots(rng)
    return code(rng, shape) if rng.random() < 0.1 else source[rng.choice(("thing", "place", "place", "person"))]


def sentence(field, who, value):
    return f"The {field} of {who} is {value}."


def turn(rng, field, records):
    """A question for the first of the records, for all values of a name that has several, or for some at once; takes what it
    asks for from the list, since an answer that was given need not be found again."""
    who, values = records[0]
    if len(values) > 1:
        del records[0]
        return f"List all values of the {field} of {who}.", f"The {field} of {who} is {', '.join(values[:-1])} and {values[-1]}."
    some = [r for r in records if len(r[1]) == 1][: rng.randint(2, 4) if rng.random() < 0.25 else 1]
    records[:] = [r for r in records if r not in some]
    if len(some) > 1:
        asked = " ".join(f"What is the {field} of {who}?" for who, _ in some)
        return f"Answer {len(some)} questions: {asked}", " ".join(sentence(field, who, v[0]) for who, v in some)
    question = rng.choice(QUESTIONS).format(f=field, n=who)
    if rng.random() < 0.5:
        return question + rng.choice(BEGINS).format(a=f"The {field} of {who} is"), sentence(field, who, values[0])
    return question, rng.choice((sentence(field, who, values[0]), values[0]))


def turns_about(rng, field, records):
    """Turns that ask for each record once, in any order."""
    left, turns = rng.sample(records, len(records)), []
    while left:
        turns.append(turn(rng, field, left))
    return turns


def several(rng, n):
    """So many records or a few more, some names with several values, and turns that ask for all of them: (statements, turns)."""
    field, wording, shape = rng.choice(FIELDS), rng.choice(STATEMENTS), form(rng)
    records, seen = [], set()

    def fresh(make):
        while (text := make(rng, shape)) in seen:
            pass
        seen.add(text)
        return text

    while sum(len(v) for _, v in records) < n:
        records.append((fresh(name), [fresh(code) for _ in range(rng.randint(2, 4) if rng.random() < 0.15 else 1)]))
    fill = lambda who, v: wording.format(f=field, F=capital(field), n=who, N=capital(who), v=v)
    return [fill(who, v) for who, all_ in records for v in all_], turns_about(rng, field, records)
