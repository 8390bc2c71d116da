# An independent count of a web server's log (common or combined format), for comparison with the example's report.
# It reads a request character by character instead of by a pattern. Run it with LC_ALL=C.

# Index of the quote that ends the text which begins at i; 0 if there is none.
function closing(line, i,    c) {
    for (; i <= length(line); i++) {
        c = substr(line, i, 1)
        if (c == "\\") i++
        else if (c == "\"") return i
    }
    return 0
}

/^$/ { next }

{ requests++ }

!match($0, /^[^ ]+ [^ ]+ [^ ]+ \[[^]:]+:[0-9][0-9]:[0-9][0-9][^]]*\] "/) { unread++; next }

{
    start = RLENGTH + 1
    end = closing($0, start)
    rest = substr($0, end + 1)
    if (!end || rest !~ /^ [0-9][0-9][0-9] ([0-9]+|-)( .*)?$/) { unread++; next }
    client = $1
    split(substr($0, index($0, "[") + 1), stamp, ":")
    minute = stamp[1] ":" stamp[2] ":" stamp[3]
    parts = split(substr($0, start, end - start), words, " ")
    path = parts > 1 ? words[2] : words[1]
    sub(/\?.*/, "", path)
    status = substr(rest, 2, 3)
    fields = split(rest, tail, " ")
    # What may follow the size: referrer and agent in quotes, and the seconds that it took.
    seconds = (fields > 2 && tail[fields] ~ /^[0-9]+(\.[0-9]+)?$/) ? tail[fields] : 0

    by_status[status]++
    if (!(minute in in_minute)) order[++minutes] = minute
    in_minute[minute]++
    by_client[client]++
    by_path[path]++
    time_of[path] += seconds
    if (status == "404") missed[client]++
    if (substr(status, 1, 1) == "5") { failed++; bad_in[minute]++; bad_on[path]++ }
}

END {
    printf "requests %d\nunread %d\nfailed %d\n", requests, unread, failed
    for (code in by_status) printf "status %s %d\n", code, by_status[code]
    for (i = 1; i <= minutes; i++) {
        m = order[i]
        if (bad_in[m] >= 5 && bad_in[m] * 4 >= in_minute[m]) { if (!burst++) first = m; last = m }
    }
    for (p in bad_on) if (bad_on[p] > most) { most = bad_on[p]; worst = p }
    if (burst) printf "burst %d %s %s %s %d\n", burst, first, last, worst, most
    for (c in by_client) if (missed[c] >= 50 && missed[c] * 2 > by_client[c]) printf "scanner %s %d %d\n", c, missed[c], by_client[c]
    for (p in by_path) if (by_path[p] >= 10 && time_of[p] / by_path[p] > longest) { longest = time_of[p] / by_path[p]; slow = p }
    if (longest >= 1) printf "slow %s %.2f\n", slow, longest
}
