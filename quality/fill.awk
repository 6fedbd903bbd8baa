# Puts tables in the place of those that a document has.
#
#     quality/tables.sh MODEL docs/facts.svg >tables; awk -f fill.awk tables docs/QUALITY.md
#
# A table is what stands between <!-- its name --> and <!-- end -->.

/^<!-- end -->$/ { inside = skipping = 0; if (NR != FNR) print; next }
/^<!-- .* -->$/ {
    name = $0
    if (NR == FNR) { inside = 1; next }
    print
    skipping = name in table
    if (skipping) printf "%s", table[name]
    next
}
NR == FNR { if (inside) table[name] = table[name] $0 "\n"; next }
!skipping
