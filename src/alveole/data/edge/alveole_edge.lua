-- The edge's part of every request: from the name asked for to the instance that answers.
--
-- The directory of links is the routing table: the text of ROUTES/<host> says where the host
-- leads, so a rename switches a site and nothing is reloaded. Texts are parsed once and cached by
-- the text itself. What was read of links is kept while the directory's time of change stands still,
-- which is asked for with every request.
--
-- route() runs in set_by_lua (no coroutine, no ngx.ctx: measured, both cost more than the rest of
-- this file) and gives "=CODE" for what the edge answers itself, else the address of the instance.

local ffi = require "ffi"
local balancer = require "ngx.balancer"
local networks = require "alveole_networks"
local past_days = require "alveole_past"
local semaphore = require "ngx.semaphore"
local under_path = require "alveole_under"

ffi.cdef [[
long readlink(const char *path, char *buffer, size_t size);
int open(const char *path, int flags, ...);
int close(int file);
long lseek(int file, long offset, int whence);
struct alveole_time { int64_t seconds; uint32_t nanoseconds; int32_t reserved; };
struct alveole_statx { uint32_t before[24]; struct alveole_time changed; uint32_t after[36]; };
int statx(int directory, const char *path, int flags, unsigned mask, struct alveole_statx *found);
int fallocate(int file, int mode, long offset, long length);
]]

local C = ffi.C
local to_string = ffi.string
local byte, sub, find, match, gsub = string.byte, string.sub, string.find, string.match, string.gsub
local lower, gmatch = string.lower, string.gmatch
local set_peer, set_more_tries = balancer.set_current_peer, balancer.set_more_tries
local last_failure, set_timeouts = balancer.get_last_failure, balancer.set_timeouts
local escape_uri = ngx.escape_uri
local var, now = ngx.var, ngx.now

-- The longest text a symbolic link can hold on tmpfs and ext4, and one more to notice the excess.
local ROOM = 4096
local buffer = ffi.new("char[4096]")
-- More than the names of a large machine; beyond it the caches start anew, they are only caches.
local CACHED = 20000
local UPGRADED_SECONDS = 3600

local WAKE_CONNECT = 2000
local WAKE_TRIES, WAKE_PAUSE, AT_ONCE = 5, 0.1, 64

local ROUTES, DOMAIN, TLS_PORT, POOLS, WAKE, WAKE_MOST, HELD, HELD_SITE, ROBOTS
local _M = { move_headers = under_path.move_headers }

function _M.setup(options)
    ROUTES, DOMAIN = options.routes .. "/", options.domain
    TLS_PORT = options.https_port == 443 and "" or ":" .. options.https_port
    POOLS, ROBOTS = options.pools, options.robots
    WAKE, WAKE_MOST = options.wake, options.wake_most
    HELD, HELD_SITE = options.held, options.held_site
    past_days.setup(options.panel)
end

-- Links ---------------------------------------------------------------------------------------

-- A link this file does not fully understand leads nowhere: a rule that is skipped would let in
-- whom it was to keep out.
local BROKEN = { to = "=502", site = "" }
local parsed, parsed_count = {}, 0

local function parse_networks(list)
    local found = {}
    for text in gmatch(list, "[^,]+") do
        local network = networks.parse(text)
        if not network then
            return nil
        end
        found[#found + 1] = network
    end
    return found
end

local function parse(text)
    local target = { site = "", https = false, allow = {}, deny = {}, plain = true }
    local first = match(text, "^[^ ]+")
    if not first then
        return BROKEN
    end
    if first == "stopped" or first == "starting" then
        target.to = "=503"
    elseif first == "asleep" or first == "asleep-for-all" then
        target.to = "=asleep"
        target.for_all = first ~= "asleep"
    elseif match(first, "^unix:/[%w/._-]+$") then
        target.to = first
    elseif match(first, "^node:/[%w/._-]+$") then
        -- The end of a line to another machine, whose own edge answers for the name.
        target.to = "unix:" .. sub(first, 6)
        target.node = true
    else
        local address, port = match(first, "^tcp:([%d.]+):(%d+)$")
        if not address or tonumber(port) > 65535 or not networks.parse(address .. "/32") then
            return BROKEN
        end
        target.to = sub(first, 5)
    end
    for key, value in gmatch(sub(text, #first + 1), "([^ =]+)=([^ ]*)") do
        if key == "site" and match(value, "^%w+$") then
            target.site = value
        elseif key == "https" and value == "1" then
            target.https = true
        elseif key == "past" and value == "1" then
            target.past = true
        elseif key == "allow" or key == "deny" then
            target[key] = parse_networks(value)
            if not target[key] then
                return BROKEN
            end
            target.limited = true
        elseif key ~= "stamp" and key ~= "sum" then
            return BROKEN
        end
    end
    target.plain = not (target.limited or target.https)
    target.pool = POOLS[ngx.crc32_short(target.to) % #POOLS + 1]
    if target.past then
        if not target.https or target.node or byte(target.to) == 61 then
            return BROKEN
        end
        target.instance, target.to = target.to, "=past"
    end
    return target
end

local function remember(text)
    if parsed_count >= CACHED then
        parsed, parsed_count = {}, 0
    end
    local target = parse(text)
    if target == BROKEN then
        ngx.log(ngx.ERR, "route not understood: ", text)
    end
    parsed[text] = target
    parsed_count = parsed_count + 1
    return target
end

-- linux/fcntl.h and linux/stat.h. O_PATH: the worker may search the directory, and need not read it.
local OPEN_PLACE, EMPTY_PATH, WANT_CHANGED = 0x200000 + 0x80000, 0x1000, 0x80
-- A link of the same clock tick as the one that was read would go unnoticed (a tick is 10 ms at the most), so
-- nothing is kept until the last change is this old, in seconds.
local SETTLED = 1
-- The directory itself may have been replaced where not even its time of change tells.
local REOPEN = 1
local status = ffi.new("struct alveole_statx")
local place, opened, seconds, nanoseconds, settled = -1, 0, 0, 0, false
-- Path -> target, of links that are there.
local links, link_count = {}, 0

local function is_read()
    return place >= 0 and C.statx(place, "", EMPTY_PATH, WANT_CHANGED, status) == 0
end

local function is_unchanged()
    return tonumber(status.changed.seconds) == seconds and status.changed.nanoseconds == nanoseconds
end

-- Whether what is kept of the links is what the directory holds.
local function in_step()
    local time = now()
    if time - opened < REOPEN and is_read() and is_unchanged() then
        return settled
    end
    if place >= 0 then
        C.close(place)
    end
    place = C.open(ROUTES, OPEN_PLACE)
    opened = time
    local read = is_read()
    if not (read and is_unchanged()) then
        links, link_count = {}, 0
        seconds, nanoseconds = tonumber(status.changed.seconds), status.changed.nanoseconds
    end
    settled = read and time - seconds > SETTLED + 1
    return settled
end

-- nil when there is no such link.
local function look_up(path)
    local keep = in_step()
    if keep and links[path] then
        return links[path]
    end
    local length = tonumber(C.readlink(path, buffer, ROOM))
    if length <= 0 or length >= ROOM then
        return nil
    end
    local text = to_string(buffer, length)
    local target = parsed[text] or remember(text)
    if keep then
        if link_count >= CACHED then
            links, link_count = {}, 0
        end
        links[path] = target
        link_count = link_count + 1
    end
    return target
end

-- Names ---------------------------------------------------------------------------------------

-- Host header -> { path of its link, path of the link of all names right below the same one, host, whether it is the
-- main domain }. Only names that have a link come in, so that nobody fills it with names of his own making.
local known, known_count = {}, 0

-- RFC 9110 section 7.2: host, and a port if it is not the default one. Gives the entry, or nil and the code.
local function understand(raw)
    local host = match(raw, "^([^:]*)$") or match(raw, "^([^:]*):%d%d?%d?%d?%d?$")
    if not host then
        return nil, match(raw, "^%[[%x:.]+%]:?%d*$") and "=404" or "=400"
    end
    host = gsub(lower(host), "%.$", "")
    if #host == 0 or find(host, "[^a-z0-9.-]") or find(host, "..", 1, true) or sub(host, 1, 1) == "." then
        return nil, "=400"
    end
    if #host > 253 then
        return nil, "=404"
    end
    for label in gmatch(host, "[^.]+") do
        if #label > 63 or sub(label, 1, 1) == "-" or sub(label, -1) == "-" then
            return nil, "=404"
        end
    end
    if match(host, "^[%d.]+$") then
        return nil, "=404"
    end
    local main = host == DOMAIN
    local dot = find(host, ".", 1, true)
    -- Right below the main domain each name is a site's or nobody's. A star is in no host name, so it is asked for
    -- by nobody.
    local below = not main and dot and sub(host, dot + 1) ~= DOMAIN and ROUTES .. "*" .. sub(host, dot) or nil
    return { path = ROUTES .. host, below = below, host = host, main = main }
end

local function link_of_prefix(prefix)
    return ROUTES .. "@" .. gsub(prefix, "/", "|")
end

-- Longest prefix of up to four segments that has a link: target, prefix; nil when there is none.
local function look_up_prefix(uri)
    local ends, at = {}, 1
    while #ends < 4 do
        local slash = find(uri, "/", at + 1, true)
        local segment = sub(uri, at + 1, (slash or 0) - 1)
        if #segment == 0 or #segment > 64 or find(segment, "[^%w._~-]") then
            break
        end
        ends[#ends + 1] = at + #segment
        if not slash then
            break
        end
        at = slash
    end
    for i = #ends, 1, -1 do
        -- NAME_MAX is 255, and a longer name is no link.
        if ends[i] <= 254 then
            local prefix = sub(uri, 1, ends[i])
            local target = look_up(link_of_prefix(prefix))
            if target then
                return target, prefix
            end
        end
    end
    return nil
end

-- What the site is asked for: the rest after the prefix, as the client wrote it where that is
-- unambiguous (an encoded slash stays encoded), else as nginx understood it.
local function rest_after(prefix, uri)
    local raw = match(var.request_uri, "^[^?#]*")
    local rest
    if sub(raw, 1, #prefix + 1) == prefix .. "/" and not find(raw, "/%.") and not find(raw, "//", 1, true)
            and not find(raw, "%%2[eE]") then
        rest = sub(raw, #prefix + 1)
    else
        rest = escape_uri(sub(uri, #prefix + 1), 0)
    end
    local args = var.args
    return args and rest .. "?" .. args or rest
end

-- Requests ------------------------------------------------------------------------------------

-- RFC 9112 section 3.2.2: the absolute form is for proxies. Nobody else sends it here but people who look for
-- an open proxy, and a second name in the request is one too many.
local function is_origin_form(line)
    local at = find(line, " ", 1, true)
    if not at then
        return true
    end
    local char = byte(line, at + 1)
    return char == 47 or char == 42
end

local function finish(target, entry)
    var.alv_site = target.site
    if not target.plain then
        if target.limited and not networks.admitted(target) then
            return "=403"
        end
        if target.https and var.alv_proto ~= "https" then
            var.alv_location = "https://" .. entry.host .. TLS_PORT .. var.request_uri
            return "=308"
        end
    end
    var.alv_pool = target.pool
    if target.node then
        if byte(var.request_uri) ~= 47 then
            return "=400"
        end
        var.alv_node = "1"
    end
    return target.to
end

local function route_prefix(target, prefix, uri, entry)
    if #uri == #prefix then
        local answer = finish(target, entry)
        if answer == "=403" or answer == "=308" then
            return answer
        end
        local args = var.args
        -- A path alone keeps the scheme, the host and the port the client used.
        var.alv_location = prefix .. "/" .. (args and "?" .. args or "")
        return "=308"
    end
    local answer = finish(target, entry)
    if byte(answer) ~= 61 or answer == "=asleep" then
        var.alv_prefix = prefix
        var.alv_rest = rest_after(prefix, uri)
    end
    return answer
end

function _M.route()
    local raw = var.http_host
    if not raw then
        return "=404"
    end
    if not is_origin_form(var.request) then
        return "=404"
    end
    local entry = known[raw]
    local new = not entry
    if new then
        local code
        entry, code = understand(raw)
        if not entry then
            return code
        end
    end
    if entry.main then
        local uri = var.uri
        local target, prefix = look_up_prefix(uri)
        if target then
            return route_prefix(target, prefix, uri, entry)
        end
    end
    local target = look_up(entry.path)
    if not target then
        -- A name of its own goes first, whatever that link says.
        target = entry.below and look_up(entry.below)
        return target and finish(target, entry) or "=404"
    end
    if new then
        if known_count >= CACHED then
            known, known_count = {}, 0
        end
        known[raw] = entry
        known_count = known_count + 1
    end
    return finish(target, entry)
end

-- The link again: the instance may just have been replaced, or woken.
local function look_again()
    local prefix = var.alv_prefix
    local target
    if prefix and prefix ~= "" then
        target = look_up(link_of_prefix(prefix))
    else
        local entry = known[var.http_host] or understand(var.http_host or "")
        target = entry and (look_up(entry.path) or entry.below and look_up(entry.below))
    end
    return target and target.site == var.alv_site and target or nil
end

local function again()
    local target = look_again()
    if not target or (byte(target.to) == 61 and not target.instance) then
        return nil
    end
    return target.instance or target.to
end

function _M.balance()
    local to = var.alv_to
    if last_failure() then
        to = again()
        if not to then
            return ngx.exit(502)
        end
    else
        -- nginx repeats only what never reached the instance or is safe to repeat: proxy_next_upstream.
        set_more_tries(1)
    end
    if var.alv_upgrade ~= "" then
        set_timeouts(nil, UPGRADED_SECONDS, UPGRADED_SECONDS)
    end
    local ok, why = set_peer(to)
    if not ok then
        ngx.log(ngx.ERR, "no such target: ", why)
        return ngx.exit(502)
    end
end

-- Sites that sleep ----------------------------------------------------------------------------

-- Who reads pages for a machine, or looks whether the site answers. "Cubot" is a make of telephones.
local function is_robot(agent)
    agent = gsub(lower(agent), "cubot", "")
    if find(agent, "bot%f[%A]") then
        return true
    end
    for _, word in ipairs(ROBOTS) do
        if find(agent, word, 1, true) then
            return true
        end
    end
    return false
end

local function ask_control(line)
    local link = ngx.socket.tcp()
    link:settimeouts(WAKE_CONNECT, WAKE_CONNECT, WAKE_MOST)
    local answer
    if link:connect(WAKE) and link:send(line .. "\n") then
        answer = link:receive("*l")
    end
    link:close()
    return answer
end

-- Site -> what requests of this worker wait for; one of them asks for all. And how many wait for anything.
local waking, held = {}, 0

local function ask(site)
    local answer = ask_control("wake " .. site)
    if answer == "awake" then
        return true
    end
    return false, answer and match(answer, "^later (%d+)$") or "10"
end

-- Whether the site is awake now; else after how many seconds asking again makes sense.
local function ask_to_wake(site)
    local most, one = (2 * WAKE_CONNECT + WAKE_MOST) / 1000, waking[site]
    if held >= HELD or one and one.held >= HELD_SITE then
        return false, "5"
    end
    held = held + 1
    if one and ngx.now() - one.since < most then
        one.held = one.held + 1
        local place, told = one.held, one.over:wait(most)
        held, one.held = held - 1, one.held - 1
        if told and place > AT_ONCE then
            -- A fresh instance may not take a thousand connections in the same moment: its queue for them is short.
            ngx.sleep((place - place % AT_ONCE) / AT_ONCE * 0.02)
        end
        return told and one.awake, told and one.seconds or "10"
    end
    one = { since = ngx.now(), held = 1, over = semaphore.new() }
    waking[site] = one
    one.awake, one.seconds = ask(site)
    held = held - 1
    if waking[site] == one then
        waking[site] = nil
    end
    if one.held > 1 then
        one.over:post(one.held - 1)
    end
    return one.awake, one.seconds
end

-- Runs where a request may wait. The body is still unread, so whatever the method, it goes to the instance whole.
function _M.wake()
    local target = look_again()
    for try = 1, WAKE_TRIES do
        if not target or target.to ~= "=asleep" then
            break
        end
        if try > 1 then
            -- It is switched this moment, or fell asleep again in the other.
            ngx.sleep(WAKE_PAUSE)
        end
        if not target.for_all and (var.request_uri == "/robots.txt" or is_robot(var.http_user_agent or "")) then
            var.alv_retry = "3600"
            return ngx.exit(503)
        end
        local awake, seconds = ask_to_wake(target.site)
        if not awake then
            var.alv_retry = seconds
            return ngx.exit(503)
        end
        target = look_again()
    end
    if not target or byte(target.to) == 61 then
        return ngx.exit(503)
    end
    if byte(var.request_uri) ~= 47 then
        return ngx.exit(400)
    end
    var.alv_to = target.to
    var.alv_pool = target.pool
    if var.alv_prefix ~= "" then
        return ngx.exec("/.alveole/prefix")
    end
end

-- A past day: of who is let in alveole_past.lua decides, and the request goes to its instance then.
function _M.past()
    local target = look_again()
    if past_days.let_in(target, ask_control) then
        var.alv_to = target.instance
        var.alv_pool = target.pool
    end
end

-- Logs that nobody takes away ----------------------------------------------------------------

-- open(2): O_WRONLY, O_NOFOLLOW, O_CLOEXEC; lseek(2): SEEK_END; fallocate(2): KEEP_SIZE, PUNCH_HOLE.
local WRITE, END, PUNCH = 1 + 0x20000 + 0x80000, 2, 1 + 2

local function give_back(path, most)
    local file = C.open(path, WRITE)
    if file < 0 then
        return
    end
    local size = tonumber(C.lseek(file, 0, END))
    if size > most then
        -- The newest half stays, at the offset where it was: nginx appends, and the agent reads on.
        local old = size - most / 2
        C.fallocate(file, PUNCH, 0, old - old % 4096)
    end
    C.close(file)
end

-- While the agent is away nobody takes the lines out of the log: the oldest are given back to the disk.
function _M.bound(paths, most)
    if ngx.worker.id() ~= 0 then
        return
    end
    ngx.timer.every(5, function()
        for _, path in ipairs(paths) do
            give_back(path, most)
        end
    end)
end

return _M
