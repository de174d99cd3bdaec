-- The edge's part of every handshake: from the name asked for to the certificate that is shown.
--
-- CERTIFICATES/<name>.pem is the name's own; else CERTIFICATES/*.<rest>.pem is that of all names right below the same
-- one; else the handshake ends. A file is read at each handshake and parsed once per content: another content is
-- another entry, so the cache can never be out of step, and a certificate is changed by one rename.

local ssl = require "ngx.ssl"

local open = io.open
local byte, find, sub = string.byte, string.find, string.sub

-- No chain with its key is longer: the agent takes none of more.
local ROOM = 300 * 1024
-- Some 20 KB each, and in every worker: beyond it the cache starts anew, it is only a cache.
local CACHED = 64

local CERTIFICATES, DOMAIN
local _M = {}

function _M.setup(options)
    CERTIFICATES = options.certificates .. "/"
    DOMAIN = options.domain
end

-- What can be a part of a path without leading anywhere else.
local function is_name(name)
    return #name > 0 and #name <= 253 and byte(name) ~= 46 and byte(name, -1) ~= 46
            and not find(name, "[^a-z0-9.-]") and not find(name, "..", 1, true)
end

local function content(name)
    local file = open(CERTIFICATES .. name .. ".pem", "rb")
    if not file then
        return nil
    end
    local text = file:read(ROOM)
    file:close()
    return text
end

local function content_below(name)
    local dot = find(name, ".", 1, true)
    if not dot or sub(name, dot + 1) == DOMAIN then
        return nil
    end
    return content("*" .. sub(name, dot))
end

local parsed, parsed_count = {}, 0

local function parse(text)
    local chain, why = ssl.parse_pem_cert(text)
    local key
    if chain then
        key, why = ssl.parse_pem_priv_key(text)
    end
    return key and { chain = chain, key = key }, why
end

local function remember(text, name)
    local found, why = parse(text)
    if not found then
        ngx.log(ngx.ERR, "certificate of ", name, " not understood: ", why)
        return nil
    end
    if parsed_count >= CACHED then
        parsed, parsed_count = {}, 0
    end
    parsed[text] = found
    parsed_count = parsed_count + 1
    return found
end

function _M.show()
    local name = ssl.server_name()
    if name and is_name(name) then
        local text = content(name) or content_below(name)
        local found = text and (parsed[text] or remember(text, name))
        if found and ssl.clear_certs() and ssl.set_cert(found.chain) and ssl.set_priv_key(found.key) then
            return
        end
    end
    return ngx.exit(ngx.ERROR)
end

return _M
