#!/usr/bin/env bash
# What the program does on a terminal, which tmux stands in for: the progress bar, colours, Ctrl-C, other
# sizes; lines that are edited in a chat, its history, pastes.
set -u
. tests/cli/lib.sh

if ! command -v tmux >/dev/null; then
    skip 'all of a terminal' 'no tmux here'
    exit 0
fi
export LC_ALL=C.UTF-8
shipped=$(ls models/cca-*.gguf)
program=$(realpath "$CCA")
gzip -dc tests/golden/chat/chat.model.gz >"$work/chat.model"
"$CCA" export --random 256,4,4,4,688,560 --seed 2 --tokenizer "$work/chat.model" -c 200000 -q \
    -o "$work/slow.gguf" 2>/dev/null
seq 1 20000 >"$work/long"
head -c 20000 examples/paradise-lost.txt >"$work/paste"

terminals=0
tm() {
    tmux -S "$work/tmux.$terminals" -f /dev/null "$@" 2>>"$work/tmux.err"
}
stop_tmux() {
    tm kill-server
    finish
}
trap stop_tmux EXIT

# Runs a command line on a new terminal of 80 by 24; $work/raw gets what it is sent.
terminal() { # command line
    tm kill-server
    terminals=$((terminals + 1))
    : >"$work/raw"
    rm -f "$work/status"
    # tmux itself forgets a status now and then. The signals are the program's.
    printf '%s\n' 'trap : INT' "$*" "echo \$? >'$work/status.new'" \
        "mv '$work/status.new' '$work/status'" >"$work/run"
    tm new-session -d -x 80 -y 24 'sleep 1000' \; set -g remain-on-exit on \; \
        pipe-pane -o "cat >>'$work/raw'" \; respawn-pane -k "exec bash '$work/run'"
    tm has-session || fail 'a terminal' "$(cat "$work/tmux.err")"
}

# All lines so far, those that the terminal wrapped in one piece.
screen() {
    tm capture-pane -p -J -S - | sed 's/ *$//'
}

await() { # pattern: until a line matches; false after a minute
    for _ in $(seq 600); do
        screen | grep -qE -- "$1" && return 0
        sleep 0.1
    done
    return 1
}

sees() { # name, pattern
    if await "$2"; then pass "$1"; else fail "$1" "no line has $2:
$(screen)"; fi
}

types() {
    tm send-keys -l -- "$1"
}

key() {
    tm send-keys "$@"
}

# Types a line and waits for the prompt behind what comes of it: the n-th prompt in all.
prompts=0
enters() {
    types "$1"
    key Enter
    ready
}
ready() {
    prompts=$((prompts + 1))
    for _ in $(seq 600); do
        [ "$(screen | grep -c '^>>>')" -ge $prompts ] && screen | grep -v '^$' | tail -1 | grep -q '^>>>$' && return 0
        sleep 0.1
    done
    fail "prompt $prompts comes" "$(screen)"
}

ends() { # name, exit status
    for _ in $(seq 600); do
        [ -f "$work/status" ] && break
        sleep 0.1
    done
    check "$1" test "$(cat "$work/status")" = "$2"
}

has_raw() { # name, pattern of what was sent
    check "$1" grep -qP -- "$2" "$work/raw"
}
has_not_raw() {
    check "$1" bash -c '! grep -qP -- "$0" "$1"' "$2" "$work/raw"
}

# The bar is one line, redrawn, as wide as the terminal lets it.
bar='^prefill [0-9]+/[0-9]+ tokens, [0-9]+ %, .* tok/s, [0-9]+:[0-9]+ left, cache'
moves() { # until the bar shows another number
    local first
    first=$(screen | grep -oE 'prefill [0-9]+')
    for _ in $(seq 600); do
        [ "$(screen | grep -oE 'prefill [0-9]+')" != "$first" ] && return 0
        sleep 0.1
    done
    return 1
}
bars() {
    screen | grep -c 'prefill [0-9]'
}
for command in "generate --attn cca -n 1" "ask --attn cca --no-kv Who --chat-template plain"; do
    name=${command%% *}
    # Lines above it, as messages are: tmux rejoins a line at the top of its screen otherwise.
    terminal "printf 'a line that is longer than a terminal of eighty columns is wide, as a warning may be\n\n'; '$program' $command -m '$work/slow.gguf' -t 1 -f '$work/long'"
    sees "$name: a bar" "$bar"
    check "$name: that is redrawn" moves
    check "$name: is one line" test "$(bars)" = 1
    has_raw "$name: in place" '\rprefill [0-9]+.*\x1b\[K'
    tm resize-window -x 40 -y 24
    moves
    check "$name: also when the terminal is narrower" test "$(bars)" = 1
    check "$name: and fits it" test "$(tm capture-pane -p | grep 'prefill [0-9]' | wc -L)" -lt 40
    key C-c
    ends "$name: Ctrl-C in prefill is exit 130" 130
    sees "$name: and told" 'interrupted in prefill'
    check "$name: the bar is gone" test "$(screen | grep -c 'tok/s')" = 0
done

terminal "'$program' generate -m '$work/slow.gguf' -n -1 --ignore-eos -p Hello --temp 0"
await '.{200}'
key C-c
ends 'Ctrl-C in an answer is exit 130' 130
sees 'and told' 'interrupted; the text so far is kept'
check 'the text stays' test "$(screen | head -c 200 | wc -c)" = 200

# Colours of warnings.
warning=("$program" export --random 32,2,4,2,64,96 -o "$work/none.gguf")
terminal "${warning[*]}"
sees 'a warning' '^warning: .*tokenizer'
has_raw 'is coloured' '\x1b\[33mwarning:\x1b\[0m'
terminal "env NO_COLOR=1 ${warning[*]}"
await '^warning:'
has_not_raw 'but not with NO_COLOR' '\x1b\[3'
terminal "${warning[*]} --color off"
await '^warning:'
has_not_raw 'nor with --color off' '\x1b\[3'
terminal "${warning[*]} 2>'$work/err'"
ends 'standard error in a file' 0
check 'has no control characters' bash -c '! grep -q "[[:cntrl:]]" "$0"' "$work/err"

# ---- a chat ----------------------------------------------------------------------------

chat="chat -m '$shipped' --temp 0 -n 24"
answers() { # of the same messages without a terminal
    printf '%s\n' "$@" | eval "'$program' $chat -q"
}
begin() { # further options
    prompts=0
    terminal "'$program' $chat $*"
    ready
}

begin
has_raw 'a coloured prompt' '\x1b\[1;32m>>>\x1b\[0m '
types 'Who is thexmän?'
key Left Left Left Left BSpace Space
enters ''
sees 'a line is edited' '^>>> Who is the män\?$'
sees 'and answered' "^$(answers 'Who is the män?')$"
enters 'And where is he?'
second=$(answers 'Who is the män?' 'And where is he?' | tail -1)
check 'the next, too' test "$(screen | grep -v '^$' | tail -2 | head -1)" = "$second"
key Up Up
sees 'the history' '^>>> Who is the män\?$'
key C-c
ready
enters /undo
sees '/undo' '^2 messages, [0-9]+ tokens$'
enters 'And where is he?'
check 'and the same answer again' test "$(screen | grep -cxF "$second")" = 2
enters /regen
check '/regen' test "$(screen | grep -cxF "$second")" = 3
enters "/save $work/talk.ccas"
sees '/save' 'talk.ccas: 4 messages'
types 'A third question'
tm resize-window -x 14 -y 24
sleep 0.5
types '?'
sleep 0.3
check 'a line in a narrower terminal' test "$(tm capture-pane -p | tail -24 | grep -A1 '^>>> A third' | tr -d '\n')" = '>>> A third question?'
tm resize-window -x 80 -y 24
sleep 0.5
key C-u
types 'xyz'
sees 'and in a wider one' '^>>> xyz$'
key C-u C-d
ends 'Ctrl-D leaves' 0
check 'the history is for its owner alone' test "$(stat -c %a "$work/state/cca/chat_history")" = 600
has_raw 'pastes are asked for' '\x1b\[\?2004h'
check 'and no longer in the end' test "$(grep -oP '\x1b\[\?2004.' "$work/raw" | tail -1 | tail -c 2)" = l

begin
key Up
sees 'another chat has the history' "^>>> /save $work/talk.ccas$"
key C-u
enters "/load $work/talk.ccas"
sees '/load' 'talk.ccas: 4 messages'
sees 'shows the last turn' '^>>> And where is he\?$'
prompts=$((prompts + 1)) # that one is none
enters 'And then?'
third=$(answers 'Who is the män?' 'And where is he?' 'And then?' | tail -1)
check 'and goes on as the one that was saved' test "$(screen | grep -v '^$' | tail -2 | head -1)" = "$third"
key C-c
sees 'Ctrl-C on an empty line' 'Ctrl-C once more, Ctrl-D or /quit leaves'
key C-c
ends 'leaves the second time' 0

# A paste is one message, whatever it has in it.
begin
tm load-buffer "$work/paste"
types 'Before: '
tm paste-buffer -p
sleep 1
types ' Behind.'
sleep 0.5
key Enter
prompts=1
await '^>>>$'
screen >"$work/seen"
enters /stats
sees 'a paste is one message' '^conversation +2 messages'
pasted=$(screen | grep -oE '^conversation .*')
{
    printf '"""Before: '
    cat "$work/paste"
    printf ' Behind."""\n/stats\n'
} | eval "'$program' $chat" >"$work/out" 2>"$work/err"
stderr_has 'of 20,000 characters, all of them' "^$pasted$"
check 'with the same answer' grep -qxF "$(cat "$work/out")" "$work/seen"
key Up Up
sleep 1
key Enter
await '^warning|generated'
enters /stats
sees 'it comes back from the history, too' '^conversation +4 messages'
key C-d

# Ctrl-C stops an answer, and a document that is read, but not the chat.
terminal "'$program' chat -m '$shipped' --chat-template llama2 --temp 0"
prompts=0
ready
types 'Tell a long story.'
key Enter
await '.{300}'
key C-c C-c
ready
sees 'Ctrl-C stops an answer' 'stopped; what was said stays'
enters /stats
sees 'which stays' '^conversation +2 messages'
sees 'and is told' 'ended by interrupted'
key C-d
ends 'and ends' 0

begin -t 1
enters Hello
enters /stats
before=$(screen | grep -oE '^conversation .*')
types "/read $work/long"
key Enter
sees 'a bar in a chat' "$bar"
key C-c
ready
sees 'Ctrl-C in prefill' 'interrupted in prefill, after [0-9]+ of [0-9]+ tokens; the conversation is as before'
enters /stats
check 'leaves all as it was' test "$(screen | grep -cxF "$before")" = 2
enters 'And you?'
next=$(answers Hello 'And you?' | tail -1)
check 'the next answer, too' test "$(screen | grep -v '^$' | tail -2 | head -1)" = "$next"
enters /nonsense
sees 'what is wrong is told' '^error: unknown command /nonsense'
enters "/read $work/none"
sees 'and the chat goes on' '^error: .*none: cannot open'
has_raw 'errors are coloured' '\x1b\[31merror:\x1b\[0m'
types 'one\'
key Enter
sees 'a message goes on' '^\.\.\.$'
types 'two'
key Enter
ready
enters /stats
sees 'as one' '^conversation +6 messages'
tm send-keys C-d
ends 'and ends' 0

# What is shown as one character is erased by one key.
begin
types $'Who \U1f469\u200d\U1f4bb\U1f44d\U1f3fd'
key BSpace BSpace
types $'is e\u0301\U1f1e9\U1f1ea'
key BSpace BSpace
types $'it\U1f1e9\U1f1ea\U1f468\u200d\U1f469\u200d\U1f467?'
key Left Left DC Left DC
enters ''
sees 'erasing among emoji' '^>>> Who is it\?$'
check 'leaves nothing behind' test "$(screen | grep -v '^$' | tail -2 | head -1)" = "$(answers 'Who is it?')"
check 'not even unseen' grep -qxF 'Who\040is\040it?' "$work/state/cca/chat_history"
key C-d

# Ctrl-Z at the prompt, and back: the shell has the terminal as it was, and the chat the line that was begun.
terminal "env PS1='SHELL> ' bash --norc --noprofile -i"
prompts=0
await '^SHELL>'
enters "'$program' $chat"
types 'Who is '
sees 'a line begun' '^>>> Who is$'
for stop in 1 2; do
    key C-z
    sees "Ctrl-Z stops a chat, $stop" 'Stopped'
    await '^SHELL>$'
    types 'clear; fg'
    key Enter
    sees 'and fg brings the line back' '^>>> Who is$'
    sleep 0.5
    check 'once' test "$(screen | grep -c '^>>>')" = 1
    check 'and asks for pastes again' test "$(grep -oP '\x1b\[\?2004.' "$work/raw" | tail -1 | tail -c 2)" = h
done
types 'it?'
key BSpace
prompts=1
enters '?'
sees 'it goes on' '^>>> Who is it\?$'
check 'with the same answer' test "$(screen | grep -v '^$' | tail -2 | head -1)" = "$(answers 'Who is it?')"
kill -STOP "$(pgrep -f "^$program chat -m $shipped --temp 0 -n 24" | tail -1)"
await 'Stopped'
types 'clear; fg'
key Enter
sees 'so it does where it was stopped from outside' '^>>>$'
prompts=0
enters 'And where is he?'
check 'with the next answer' test "$(screen | grep -v '^$' | tail -2 | head -1)" = \
    "$(answers 'Who is it?' 'And where is he?' | tail -1)"
key C-d

# ask -i has the same keys, and a history of its own.
terminal "'$program' ask -m '$shipped' -f '$work/paste' --no-kv --sources 0 -n 8 -i -q"
await '^>$'
has_raw 'a prompt of ask' '\x1b\[1;32m>\x1b\[0m '
types 'Who is thexmän?'
key Left Left Left Left BSpace Space Enter
sees 'a question is edited' '^> Who is the män\?$'
await '^>$'
check 'and answered' test "$(screen | grep -v '^$' | tail -2 | head -1)" = \
    "$("$CCA" ask -m "$shipped" -f "$work/paste" --no-kv -n 8 -q 'Who is the män?')"
types 'nothing'
key C-c
await '\^C'
key Up
sees 'the history' '^> Who is the män\?$'
key C-c C-d
ends 'Ctrl-D leaves' 0
check 'which is its own' test "$(tail -1 "$work/state/cca/ask_history" | grep -c 'Who')" = 1
check 'and its owner'"'"'s alone' test "$(stat -c %a "$work/state/cca/ask_history")" = 600

terminal "'$program' $chat >'$work/answers'"
prompts=0
ready
enters 'Who is the män?'
enters /stats
key C-d
ends 'standard output in a file' 0
check 'has the answers alone' cmp "$work/answers" <(answers 'Who is the män?')
