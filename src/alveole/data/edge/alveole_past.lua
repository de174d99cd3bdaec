-- Past days: a name that only visitors reach who came through the pages of the panel.
--
-- Nothing is decided here: a visitor brings a ticket, which control takes once and gives a pass for, or a pass, and
-- control is asked about that for every request (see services/pastdays.py). What control does not say is no.

local byte, gmatch, lower, match = string.byte, string.gmatch, string.lower, string.match
local var = ngx.var

local PASS_COOKIE = "__Host-alveole-past"
-- What control gives has exactly this length (people/passwords.py, secret); it is asked about nothing else.
local SECRET = 43
local PANEL
local _M = {}

-- ``panel``: the address at which visitors sign in, but for the id of the past day; empty: there are no pages.
function _M.setup(panel)
    PANEL = panel
end

-- The pass in the Cookie header, and the header without it; of two passes neither counts.
local function split_cookies(header)
    local kept, pass = {}, nil
    for part in gmatch(header, "[^;]+") do
        local name, value = match(part, "^%s*([^=]-)%s*=%s*(.-)%s*$")
        if name == PASS_COOKIE then
            pass = pass == nil and value or ""
        else
            kept[#kept + 1] = match(part, "^%s*(.-)%s*$")
        end
    end
    return pass, table.concat(kept, "; ")
end

-- A page of elsewhere, another site of this machine included, may lead a person here, and nothing else: its scripts
-- would look with the person's pass.
local function from_elsewhere(method)
    local origin = var.http_origin
    if origin and lower(origin) ~= "https://" .. lower(var.http_host) then
        return true
    end
    local from = var.http_sec_fetch_site
    if from ~= "cross-site" and from ~= "same-site" then
        return false
    end
    return method ~= "GET" or var.http_sec_fetch_mode ~= "navigate" or var.http_sec_fetch_dest ~= "document"
end

local function to_panel(site, method)
    if PANEL == "" or (method ~= "GET" and method ~= "HEAD") then
        return ngx.exit(403)
    end
    ngx.header["Cache-Control"] = "no-store"
    return ngx.redirect(PANEL .. site, 303)
end

-- Whether the visitor goes on to the instance of ``target``; else the request is answered. ``ask_control`` sends a line
-- to control and gives the one that comes back. Runs where a request may wait. The site sees nothing of the pass.
function _M.let_in(target, ask_control)
    if not target or not target.instance then
        return ngx.exit(404)
    end
    local uri, method = var.request_uri, var.request_method
    if byte(uri) ~= 47 then
        return ngx.exit(400)
    end
    if from_elsewhere(method) then
        return ngx.exit(403)
    end
    local ticket = match(uri, "^/%.alveole/enter%?ticket=([%w_-]+)$")
    if ticket then
        local answer = #ticket == SECRET and ask_control("ticket " .. target.site .. " " .. ticket) or ""
        local pass, seconds = match(answer, "^yes ([%w_-]+) (%d+)$")
        if not pass then
            return to_panel(target.site, method)
        end
        local header = ngx.header
        header["Cache-Control"] = "no-store"
        header["Referrer-Policy"] = "no-referrer"
        header["Set-Cookie"] = PASS_COOKIE .. "=" .. pass .. "; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age="
            .. seconds
        return ngx.redirect("/", 303)
    end
    local pass, others = split_cookies(var.http_cookie or "")
    if not pass or #pass ~= SECRET or not match(pass, "^[%w_-]+$")
            or ask_control("pass " .. target.site .. " " .. pass) ~= "yes yes" then
        return to_panel(target.site, method)
    end
    if others == "" then
        ngx.req.clear_header("Cookie")
    else
        ngx.req.set_header("Cookie", others)
    end
    return true
end

return _M
