-- Answers of sites that are served under a path of the main domain: what leads to "/x" there leads to "/my-app/x" here.

local byte, sub, match, lower = string.byte, string.sub, string.match, string.lower
local var = ngx.var
local _M = {}

local function under(prefix, path)
    if path == prefix or sub(path, 1, #prefix + 1) == prefix .. "/" then
        return path
    end
    return prefix .. path
end

-- "/x" and "https://this-host/x" become "/my-app/x"; other hosts and relative ones stay.
local function move(prefix, url)
    if sub(url, 1, 2) == "//" then
        return url
    end
    if byte(url) == 47 then
        return under(prefix, url)
    end
    local origin, path = match(url, "^(https?://[^/?#]+)(.*)$")
    if origin and lower(match(origin, "//(.*)$")) == lower(var.http_host or "") then
        return origin .. under(prefix, byte(path) == 47 and path or "/" .. path)
    end
    return url
end

local function move_cookie(prefix, cookie)
    local head, path, tail = match(cookie, "^(.-;%s*[Pp][Aa][Tt][Hh]%s*=%s*)(/[^;]*)(.*)$")
    if not head then
        return cookie
    end
    return head .. under(prefix, path) .. tail
end

function _M.move_headers()
    local prefix = var.alv_prefix
    if not prefix or prefix == "" then
        return
    end
    local headers = ngx.header
    for _, name in ipairs { "Location", "Content-Location" } do
        local value = headers[name]
        if type(value) == "string" then
            headers[name] = move(prefix, value)
        end
    end
    local refresh = headers["Refresh"]
    if type(refresh) == "string" then
        local head, url = match(refresh, "^(%s*%d+%s*;%s*[Uu][Rr][Ll]=)(.*)$")
        if head then
            headers["Refresh"] = head .. move(prefix, url)
        end
    end
    local cookies = headers["Set-Cookie"]
    if type(cookies) == "string" then
        headers["Set-Cookie"] = move_cookie(prefix, cookies)
    elseif type(cookies) == "table" then
        local moved = {}
        for i, cookie in ipairs(cookies) do
            moved[i] = move_cookie(prefix, cookie)
        end
        headers["Set-Cookie"] = moved
    end
end

return _M
