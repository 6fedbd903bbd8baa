#!/usr/bin/env python3
"""Writes cases.json, which tests/unit/test_jinja.c reads.

    pip install transformers==5.24.0 jinja2==3.1.6
    python tests/golden/jinja/make.py

Each case has a template of our own, and what Jinja2 makes of it as transformers sets it up, with
VARIABLES: "text", or "fails" with the kind of error.
"""

import json
import pathlib

from transformers.utils import chat_template_utils

VARIABLES = {
    "messages": [{"role": "system", "content": "Be brief."},
                 {"role": "user", "content": "  Who wrote <it>?\n", "n": 1},
                 {"role": "assistant", "content": "Milton: \"Paradise 'Lost'\" caf\u00e9 \U0001f600\t\\", "n": 2},
                 {"role": "user", "content": "When?", "tags": ["b", "A", "c", "a"], "n": 3}],
    "tools": [{"name": "look_up", "parameters": {"type": "object", "properties": {"b": {"x": 1.5}, "a": None}}, "strict": True}],
    "s": "The old man went down to the sea.", "empty": "", "n": 7, "x": 2.5, "yes": True, "none_": None,
    "d": {"one": 1, "two": [1, 2, {"k": "v"}], "Three": "3", "items": 5}, "l": [3, 1, 2, 1], "words": ["b", "A", "c", "a"],
    "big": 9007199254740993, "tiny": 1.5e-7, "huge": 1e22, "u": "\u00c9t\u00e9 stra\u00dfe \u01c6 \u4e16\u754c", "bos_token": "<s>",
}

# Each is printed with {{ }}.
EXPRESSIONS = r"""
1 + 2 * 3 - 4
(1 + 2) * 3
7 // 2
-7 // 2
-7 % 3
7 % -3
7 / 2
6 / 3
2 ** 10
2 ** -1
-2 ** 2
2 ** 3 ** 2
7.5 // 2
-7.5 % 2
1e3
1_000
0x1F + 0b11 + 0o17
1.0
100000000000000000000.0
0.1 + 0.2
1e16
123456789012345.0
tiny
huge
x * 2
big
true + 1
'a' ~ 1 ~ none ~ true ~ 1.0
'a' + 'b' * 3
3 * 'ab'
[1] + [2]
[1, 2] * 2
(1,) + (2,)
'a' 'b'
"it's"
'say "hi"'
'\x41\u00e9\n\t\\\'\101\q'
[1, 'a', "it's", 'say "x" it\'s', none, true, 1.5, (1,), (), {'a': [1]}, 'caf\u00e9\n\x01\u200b']
{}
{'a': 1, 2: 'b', none: 1.0, true: 3}
()
(1)
(1,)
1, 2
d
d.one
d['two'][2].k
d.two[-1]['k']
d['items']
d.get('one'), d.get('zz'), d.get('zz', 4)
d.missing
d.missing is defined
d['missing'] is undefined
none_.foo
l[0], l[-1], l[10]
l.0
l[1:3], l[:2], l[2:], l[::-1], l[::2], l[-2:], l[:-1], l[3:1]
s[4:7]
s[::-1]
s[0], s[-1], s[100]
u[0], u[4:7], u[::-1], u|length
words[1:]|join
'a' if yes else 'b'
'a' if false
('a' if false) is defined
1 if false else 2 if true else 3
yes and n
none_ or empty or 'x'
not yes
not none_
not 1 == 2
1 < 2 < 3
1 < 2 > 3
1 == 1.0, 1 == true, '1' == 1, none_ == none, [1] == [1], (1,) == [1], {'a': 1} == {'a': 1.0}
'a' < 'b', [1, 2] < [1, 3], 'abc' < 'abd', 'A' < 'a'
'old' in s, 'x' not in s, 1 in l, 9 in l, 'one' in d, 'x' in missing
'a' in 'abc' and 'b' in ['b']
2 is even, 3 is odd, 4 is divisibleby 2, 4 is divisibleby(3)
1 is number, 1.0 is number, true is number, 'a' is number
1 is integer, true is integer, 1.0 is float, 1 is float, true is boolean, 1 is boolean
'a' is string, 1 is string, none is none, none_ is none, missing is none
[] is sequence, 'a' is sequence, {} is sequence, 1 is sequence, missing is sequence, () is sequence
[] is iterable, 'a' is iterable, {} is iterable, 1 is iterable, none is iterable
{} is mapping, [] is mapping
true is true, 1 is true, false is false, 0 is false
'abc' is lower, 'ABC' is upper, 'aB' is lower, '1' is lower
1 is eq 1, 1 is equalto(2), 1 is ne 2, 1 is lt 2, 2 is ge 2, 3 is greaterthan 2, 1 is sameas 1, none is sameas none
1 is in [1, 2], 'a' is not in 'xyz', 1 is not none
range is callable, s is callable, 'upper' is filter, 'nope' is filter, 'defined' is test
s is defined and s is not none and s|length > 3
missing
missing|default('x'), empty|default('x'), empty|default('x', true), none_|d('y', boolean=true), missing|default
missing|length, missing|list, missing|join, missing|upper, missing|string, missing|items|list
'  x '|trim, 'xxaxx'|trim('x'), '[' ~ '\t\n a \u00a0'|trim ~ ']'
s|upper, s|lower, s|title, s|capitalize, u|upper, u|lower, u|title, u|capitalize
s.upper(), s.title(), s.capitalize(), s.swapcase(), u.upper(), u.title(), "it's-me a{b".title(), "it's-me a{b"|title
s|length, l|count, d|length, u|length, empty|length
words|join, words|join(', '), l|join('-'), messages|join(',', attribute='role'), [1, none, 'x']|join(' ')
s|replace('o', '0'), s|replace('o', '0', 1), 'aaa'|replace('', '-'), 5|replace('5', 'x')
s.replace('the', 'THE', 1), 'aaa'.replace('a', 'b', 2), 'ab'.replace('', '.'), 'ab'.replace('', '.', 2)
tools|tojson
tools|tojson(indent=2)
tools|tojson(indent=4, sort_keys=true)
d|tojson(separators=(',', ':')), d|tojson(ensure_ascii=true), u|tojson, u|tojson(ensure_ascii=true)
messages[2].content|tojson, '<&>\x7f\x01'|tojson, [1.0, 1e22, 1e-7, 123456.75, true, none]|tojson, {1: 2, none: 3, true: 4, 1.5: 5}|tojson
[]|tojson(indent=2), {}|tojson(indent=2), [[], {}]|tojson(indent=1)
messages[2].content|tojson|tojson
d|items|list, d.items()|list, d.keys()|list, d.values()|list, d|list
d|dictsort, {'b': 1, 'A': 2, 'c': 0}|dictsort, {'b': 1, 'A': 2}|dictsort(true), {'b': 1, 'A': 2}|dictsort(by='value', reverse=true)
'abc'|list, (1, 2)|list, range(3)|list, range(1, 10, 3)|list, range(5, 0, -2)|list, range(0)|list
'12'|int, ' 12 '|int, '12.7'|int, 'x'|int, 'x'|int(5), 12.9|int, '0x1f'|int(base=16), '1f'|int(0, 16), none_|int, true|int, '-7'|int, '1_0'|int
'1.5'|float, 'x'|float, 'x'|float(2.5), 3|float, '1e3'|float
l|first, l|last, []|first, 'abc'|first, 'abc'|last, words|first
words|map('upper')|list, messages|map(attribute='role')|list, messages|map(attribute='tags.1', default='-')|list, ['a b']|map('replace', 'a', 'x')|list
l|select('odd')|list, l|reject('odd')|list, l|select('gt', 1)|list, [0, 1, '', 'x']|select|list, [0, 1]|reject|list
messages|selectattr('role', 'equalto', 'user')|list|length, messages|rejectattr('role', 'eq', 'user')|map(attribute='role')|join, messages|selectattr('tags')|list|length, messages|selectattr('tags', 'defined')|list|length
none_|selectattr('a')|list, none_|map('upper')|list
l|unique|list, words|unique|list, ['a', 'A', 'b']|unique|list, ['a', 'A']|unique(true)|list, messages|unique(attribute='role')|map(attribute='role')|list
l|sort, words|sort, words|sort(case_sensitive=true), l|sort(reverse=true), messages[1:]|sort(attribute='n', reverse=true)|map(attribute='n')|list, messages[1:]|sort(attribute='role,n')|map(attribute='n')|list
l|reverse|list, 'abc'|reverse, (1, 2)|reverse|list
l|sum, l|sum(start=10), messages[1:]|sum('n'), []|sum, [1.5, 1]|sum
l|min, l|max, words|min, words|max, []|min, messages[1:]|max(attribute='n')
[1, 2, 3, 4, 5]|batch(2)|list, [1, 2, 3]|batch(2, 'x')|list
(-5)|abs, 5.5|abs, -5|abs, 2.5|round, 3.5|round, 42.55|round(1), 42.55|round(1, 'floor'), 42.45|round(1, 'ceil'), 7|round, 2.675|round(2)
'a\nb\n\nc'|indent, 'a\nb'|indent(2), 'a\nb'|indent(2, true), 'a\n\nb'|indent(2, blank=true), 'a\nb'|indent('> '), 'a\n'|indent
'<a href="x">&\'</a>'|e, '<'|escape|escape, '<'|safe|e, ('<'|safe) + '<', '<' + ('>'|safe), ('<'|safe) ~ '<', '<'|e|forceescape
'%s is %d, %5.2f%% %r %x %-4s| %04d %+d'|format('a', 3, 2.567, 'q', 255, 'b', 42, 7), '%(a)s'|format(a=1)
'%s %s' % ('a', 1), '%s' % 'x', '%d' % 3.7, '%s' % [1], '%5s|%-5s|%.2s' % ('a', 'b', 'cde')
'{} {}'.format('a', 1), '{1} {0}'.format('a', 'b'), '{x} {y.one} {z[0]}'.format(x=1, y=d, z=l), '{{}} {:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{!r}'.format('a', 'b', 'c', 42, 3.14159, 1234567, 'q'), '{:*^7}'.format('x'), '{:x} {:5} {:5}|'.format(255, 3, 'a')
'a b  c'.split(), 'a,b,,c'.split(','), 'a,b,c'.split(',', 1), 'a b c'.split(none, 1), '  a b  '.split(maxsplit=1), ''.split(), ''.split(','), 'a</think>b'.split('</think>')[-1]
'a b  c'.rsplit(), 'a,b,c'.rsplit(',', 1), ' a b c '.rsplit(none, 1), 'a\nb\r\nc\n'.splitlines(), 'a\nb'.splitlines(true), 'a=b=c'.partition('='), 'a=b=c'.rpartition('='), 'abc'.partition('x'), 'abc'.rpartition('x')
'  x '.strip(), 'xxaxx'.strip('x'), 'xya'.lstrip('yx'), 'axy'.rstrip('xy'), '\n a'.lstrip('\n'), '\u3000x\u3000'.strip(), '\u00e9a\u00e9'.strip('\u00e9')
s.startswith('The'), s.startswith(('x', 'The')), s.endswith('.'), s.endswith(('a', 'b')), s.startswith('old', 4), 'abc'.removeprefix('a'), 'abc'.removesuffix('bc'), 'abc'.removeprefix('x')
s.find('old'), s.find('zz'), s.rfind('o'), s.index('man'), s.count('o'), u.find('stra'), 'aaa'.count(''), 'abcabc'.find('c', 3), 'abc'.find('c', 0, 2)
'12'.isdigit(), 'a1'.isalnum(), 'ab'.isalpha(), ' '.isspace(), 'AB'.isupper(), ''.isdigit(), 'aB'.islower()
'-'.join(['a', 'b']), ''.join(words), 'x'.ljust(3) ~ '|', 'x'.rjust(3), 'x'.center(4) ~ '|', '7'.zfill(3), '-7'.zfill(4)
l.index(2), l.count(1), (1, 2, 1).count(1), d.copy() == d
dict(a=1, b=2), dict([('a', 1)]), dict({'x': 1}, y=2), namespace(a=1).a, namespace({'b': 2}).b
s|wordcount, 'foo bar baz qux'|truncate(9), 'foo bar baz qux'|truncate(9, true), 'foo bar'|truncate(20), 'x'|center(5) ~ '|'
[1, 2]|tojson|safe, {'a': '<b>'}|tojson
[[1, 2], [3]]|sum(start=[])
messages[-1].role, messages|length, messages[0]['content'] ~ '!', (messages|last).content, messages[1:][0].content|trim
{'a': 1}.a, {'a': {'b': 2}}['a'].b, [1, 2][0], 'abc'[1], (1, 2)[1]
-1|abs, (-1)|abs, 1 - -1, +1, -x
none, None, true, True, false, False
n is defined and n > 5 and n in [7], 'a' 'b' ~ 'c'
1 if n > 5 else 0, (2 if n < 5 else 3) + 1
d is mapping and 'two' in d and d.two is sequence and d.two is not string
messages|map(attribute='content')|map('trim')|map('length')|list
[3, 1]|sort|first, ([1, 2]|select('even')|list or [9])|first
not n in l, not (n in l), n not in l
(l|map('string')) is iterable, (l|select('odd')) and 'generators are true'
'%d%%' % 5, '%c' is string
"a" not in "abc" or "x"
{'k': l}.k[0], {'a b': 1}['a b'], {1: 'x'}[1], {(1, 2): 3}[(1, 2)]
[none, false, 0, 0.0, '', [], {}, ()]|map('default', 'x', true)|list
3.0 == 3, 3.5|int, 1e100, -0.0, 1.5e300 * 1e10, 10 ** 15, 1 / 3
'abc'|upper|lower|title|list|join('.')
s[4:]|capitalize|replace('M', 'm')|trim('.')
namespace(x=1, y='a') is mapping, range(3) is sequence, range(3)|length, 2 in range(3)
'ǆ'|upper
'line1\\nline2', 'tab\there', "dq\"s", 'nul\0x'|length
""".strip().split("\n")

TEMPLATES = [
    # loops
    "{% for m in messages %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.length }}"
    "{{ ' first' if loop.first }}{{ ' last' if loop.last }} {{ m.role }};{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|items %}{{ loop.index }}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }},{% endfor %}{% for c in 'h\u00e9' %}[{{ c }}]{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ m.content }}{{ loop.last }}{{ loop.length }}|{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'x' %}{{ m }}{% else %}none{% endfor %}",
    "{% for m in [] %}x{% else %}empty{% endfor %}{% for m in missing %}x{% else %}gone{% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
    "{% for i in range(4) %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }} {% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3)), (4, [5, 6])] %}{{ a }}{{ b }}{{ c }} {% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in range(3) %}{% for j in range(3) %}{% if j > i %}{% break %}{% endif %}{{ i }}{{ j }}{{ loop.index }} {% endfor %}{{ loop.index }};{% endfor %}",
    "{% for item in [{'n': 1, 'c': [{'n': 2, 'c': []}, {'n': 3}]}] recursive %}{{ loop.depth }}{{ loop.depth0 }}{{ item.n }}"
    "({% if item.c %}{{ loop(item.c) }}{% endif %}){% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }}",
    "{% set ns = namespace(found=false, n=0) %}{% for m in messages if not ns.found %}{% set ns.n = ns.n + 1 %}"
    "{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ ns.found }}",
    "{% for i in [1, 2] %}{% if i == 1 %}{% set y = 'in' %}{% endif %}{{ y is defined }} {% endfor %}{{ y is defined }}",
    "{% for i in l|sort|unique %}{{ i }}{{ ',' if not loop.last }}{% endfor %}",
    "{% set g = l|map('string') %}{{ g|join }}|{{ g|join }}",
    # if and set
    "{% if n > 10 %}a{% elif n > 5 %}b{% elif n %}c{% else %}d{% endif %}",
    "{% if missing %}a{% endif %}{% if not missing %}b{% endif %}{% if yes and n == 7 or x %}c{% endif %}",
    "{% if n == 7 %}{% set z = 'set' %}{% endif %}{{ z }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = a, b %}{{ c }}{% set (e, f) = [3, 4] %}{{ e + f }}",
    "{% set block %}Hello {{ n }}{% endset %}[{{ block }}]{{ block|upper }}{{ block|length }}",
    "{% set block | upper | trim %}  a{{ n }} {% endset %}[{{ block }}]",
    "{% set loop = 5 %}{{ loop }}",
    "{% set messages = messages[1:] %}{{ messages|length }}",
    "{% set ns = namespace() %}{% set ns.a = [1] %}{% set ns.a = ns.a + [2] %}{{ ns.a }}{{ ns.b is defined }}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% set c = 2 %}{% endwith %}{{ a is defined }}{{ c is defined }}",
    # macros
    "{% macro f(a, b='x', c=n) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(b=3, a=4) }}{{ f() }}{{ f(1, c=[2]) }}",
    "{% macro f(x) %}{% if x > 0 %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(4) }}",
    "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, a=3) }}",
    "{% macro f() %}{{ caller() }}-{{ caller() }}{% endmacro %}{% call f() %}x{{ n }}{% endcall %}",
    "{% macro f() %}{{ caller('a', b='c') }}{% endmacro %}{% call(x, b) f() %}{{ x }}{{ b }}{% endcall %}",
    "{% set y = 1 %}{% macro f() %}{{ y }}{% endmacro %}{% set y = 2 %}{{ f() }}{% for y in [3] %}{{ f() }}{% endfor %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}late{% endmacro %}{{ a() }}",
    "{% macro f(x) %}{% set x = x ~ '!' %}{{ x }}{% endmacro %}{{ f('a') }}{{ f('b')|upper }}{{ f is callable }}",
    "{% macro f(v) %}{{ v }}{% endmacro %}{{ f(*[1]) }}{{ f(**{'v': 2}) }}",
    "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}",
    # filter, raw, comments, generation
    "{% filter upper %}a{{ n }}b{% endfilter %}{% filter replace('a', 'b') | upper %}banana{% endfilter %}",
    "{% raw %}{{ not }} {% this %} {# x #}{% endraw %}|{%- raw -%}  a  {%- endraw -%}  |",
    "a{# comment {{ x }} #}b{#- c -#} d",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.role }}{% endif %}{% endfor %}",
    "{% set j = joiner('; ') %}{% for i in l %}{{ j() }}{{ i }}{% endfor %}{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}",
    "{% print n %}{% print 'a' %}",
    # white space
    "  {% if yes %}\n  a\n  {% endif %}\nb\n",
    "x {%- if yes %} a {%- endif %} b {%- if yes -%} c {% endif -%} d",
    "a\n   {%- set q = 1 %}\n\n  b {{- n -}}  c",
    "  {%+ if yes %}a{% endif +%}\n  b\n",
    "a  {# c #}\n  {# d #}\n b\n\n",
    "{% for i in [1, 2] %}\n  {{ i }}\n{% endfor %}\nend\n\n",
    "\t{{ n }}\n\t{% if n %}\t{{ x }}\n{% endif %}\r\nx\ry\n",
    "{{ {'a': {'b': 1}} }}{{ {'a': [{}]} }}{{ '}}' }}{{ \"%}\" }}",
    "{%- for m in messages %}\n    {%- if loop.first and m.role == 'system' -%}\n        {{- bos_token + m.content }}\n    {%- endif %}\n{%- endfor %}",
    "{{ 'a' }}\n{{ 'b' }}\n\n{{ 'c' }}\n",
    "  {% raw %}\n x {% endraw %}\ny",
    "{{'a'}}{%if yes%}b{%endif%}{{-'c'-}} {%-if yes-%} d {%-endif-%} e",
    "line\n  {# a #}{{ n }}\n  {# b #}  \nend",
    # like chat templates
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content']|trim + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
    "{%- if messages[0]['role'] == 'system' %}{%- set sys = messages[0]['content'] %}{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}"
    "{%- for m in rest %}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{- raise_exception('roles must alternate') }}{%- endif %}"
    "{%- if m.role == 'user' %}{{- '[INST] ' + (sys + '\\n\\n' if loop.last and sys is defined else '') + m.content + '[/INST]' }}{%- else %}{{- ' ' + m.content|trim + '</s>' }}{%- endif %}{%- endfor %}",
    "{%- set ns = namespace(last=-1) %}{%- for m in messages[::-1] %}{%- set i = (messages|length - 1) - loop.index0 %}{%- if ns.last < 0 and m.role == 'user' %}{%- set ns.last = i %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set c = m.content %}{%- if '</think>' in c %}{%- set c = c.split('</think>')[-1].lstrip('\\n') %}{%- endif %}{{- m.role ~ ':' ~ c ~ (loop.index0 > ns.last) }}{%- endfor %}",
    "{%- macro kind(t) %}{%- if t is string %}{{- t }}{%- elif t is mapping %}{%- for k, v in t|dictsort %}{{- k ~ ':' ~ kind(v) ~ ';' }}{%- endfor %}{%- elif t is none %}null{%- else %}{{- t|tojson }}{%- endif %}{%- endmacro %}"
    "{%- for t in tools %}{{- kind(t) }}{%- endfor %}",
    "{{ tools[0]|tojson }}{% for p, v in tools[0].parameters.properties.items() %}{{ p }}{{ v is none }}{% endfor %}",
]

FAILURES = [
    "{{ missing.x }}", "{{ d.missing.x }}", "{{ missing['x'] }}", "{{ missing() }}", "{{ missing + 1 }}", "{{ 1 + 'a' }}", "{{ 'a' + 1 }}",
    "{{ missing < 1 }}", "{{ 1 < 'a' }}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 1 in 'a' }}", "{{ 1 in 2 }}", "{{ none|length }}", "{{ 5|length }}",
    "{% for x in none %}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% set a, b = [1] %}",
    "{{ raise_exception('no') }}", "{{ n() }}", "{{ s.nothing() }}", "{{ l|first|length }}", "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}",
    "{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "{{ missing|tojson }}", "{{ range(1000000)|length }}", "{{ range(3)|tojson }}", "{{ l|map('nope')|list }}",
    "{{ l|select('nope')|list }}", "{{ [1, 'a']|sort }}", "{{ s|int|length }}", "{% set n.x = 1 %}", "{{ '%d' % 'a' }}", "{{ '%s %s' % 'a' }}",
    "{{ '{}'.format() }}", "{{ 'a'.split('') }}", "{{ s.index('zz') }}", "{{ {[1]: 2} }}", "{{ missing ~ missing.y }}", "{{ loop.index }}",
    "{{ -missing }}", "{{ missing|int }}", "{{ l|join(1, 2, 3) }}", "{{ s|upper(1) }}", "{{ 5|items|list }}", "{{ none|dictsort }}", "{{ (l|map('string'))|length }}",
    # not even a template
    "{{", "{{ }}", "{{ 1 +", "{% if %}", "{% if yes %}", "{% for %}", "{% endif %}", "{% nope %}", "{{ 'a }}", "{# x", "{{ a b }}", "{{ (1 }}", "{{ [1) }}",
    "{% raw %}x", "{% set 1 = 2 %}", "{% macro f(a=1, b) %}{% endmacro %}", "{{ f(a=1, 2) }}", "{% for x in y %}", "{% break %}", "{{ 1 is }}", "{{ a. }}", "{{ !x }}",
    "{% call n %}{% endcall %}", "{% if yes %}{% endfor %}", "{{ x | }}", "{% else %}", "{{ {1} }}", "{{ 1 not 2 }}", "{{ x[ }}",
]


def main():
    cases = []
    for source in ["{{ " + e + " }}" for e in EXPRESSIONS] + TEMPLATES + FAILURES:
        try:
            template = chat_template_utils._compile_jinja_template(source)
            cases.append({"template": source, "text": template.render(**json.loads(json.dumps(VARIABLES)))})
        except Exception as e:
            cases.append({"template": source, "fails": type(e).__name__})
    for case in cases:
        wanted = case["template"] not in FAILURES
        if ("text" in case) != wanted:
            print("unexpected:", case)
    path = pathlib.Path(__file__).parent / "cases.json"
    with path.open("w") as f:
        f.write('{"variables": ' + json.dumps(VARIABLES, ensure_ascii=False) + ',\n "cases": [\n')
        f.write(",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]}\n")
    print(len(cases), "cases")


main()
