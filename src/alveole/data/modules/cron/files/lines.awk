# From lines of a crontab (crontab(5)) to what snooze(1) is told: `run N ARGUMENTS` and the command on a line of
# its own. A line with both a day and a weekday runs on either, so it gives two runs of the same number.
BEGIN {
    split("jan feb mar apr may jun jul aug sep oct nov dec", months, " ")
    for (n in months) month[months[n]] = n
    split("sun mon tue wed thu fri sat", days, " ")
    for (n in days) weekday[days[n]] = n - 1
    named["@hourly"] = "0 * * * *"
    named["@daily"] = named["@midnight"] = "0 0 * * *"
    named["@weekly"] = "0 0 * * 0"
    named["@monthly"] = "0 0 1 * *"
    named["@yearly"] = named["@annually"] = "0 0 1 1 *"
}

function wrong(why) {
    print "wrong line " NR ": " why
    failed = 1
    return ""
}

function number(text, low, high, names) {
    text = tolower(text)
    if (text in names) text = names[text]
    if (text !~ /^[0-9]+$/ || text + 0 < low || text + 0 > high) {
        wrong(text " is not between " low " and " high)
        return low
    }
    return text + 0
}

# "1-5,*/20" as the numbers it means, with commas.
function expand(text, low, high, names,    parts, n, at, step, range, from, to, out, value) {
    n = split(text, parts, ",")
    out = ""
    for (at = 1; at <= n; at++) {
        step = 1
        if (split(parts[at], range, "/") == 2) step = number(range[2], 1, high, none)
        from = low; to = high
        if (range[1] != "*") {
            split(range[1], ends, "-")
            from = number(ends[1], low, high, names)
            to = range[1] ~ /-/ ? number(ends[2], low, high, names) : (parts[at] ~ /\// ? high : from)
        }
        for (value = from; value <= to; value += step) out = out (out == "" ? "" : ",") value
    }
    return out
}

/^[ \t]*(#|$)/ { next }

{
    failed = 0
    text = $0
    sub(/^[ \t]+/, "", text)
    if (text ~ /^@/) {
        name = text; sub(/[ \t].*/, "", name)
        if (!(name in named)) { wrong(name " is not known"); next }
        text = named[name] substr(text, length(name) + 1)
    }
    for (at = 1; at <= 5; at++) {
        field[at] = text; sub(/[ \t].*/, "", field[at])
        sub(/^[^ \t]*[ \t]*/, "", text)
    }
    if (text == "" || field[1] !~ /^[0-9*]/) { wrong("it has not five fields and a command"); next }
    # What a crontab must escape, and we need not.
    gsub(/\\%/, "%", text)
    times = "-M" expand(field[1], 0, 59, none) " -H" expand(field[2], 0, 23, none)
    times = times " -m" expand(field[4], 1, 12, month)
    on_day = " -d" expand(field[3], 1, 31, none)
    on_weekday = " -w" expand(field[5], 0, 7, weekday)
    if (failed) next
    if (field[3] ~ /^\*/ || field[5] ~ /^\*/) {
        print "run " NR " " times on_day on_weekday; print text
    } else {
        print "run " NR " " times on_day " -w*"; print text
        print "run " NR " " times " -d*" on_weekday; print text
    }
}
