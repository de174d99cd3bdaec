-- Who is let in by the address it comes from.

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
int inet_pton(int family, const char *text, void *address);
]]

local C = ffi.C
local to_string = ffi.string
local byte, sub, find, match = string.byte, string.sub, string.find, string.match
local band, lshift = bit.band, bit.lshift
local var = ngx.var

local _M = {}

local packed = ffi.new("unsigned char[16]")

-- "192.0.2.0/24" -> { bytes of the address, prefix length }; nil when it is not one.
function _M.parse(text)
    local address, bits = match(text, "^([%x.:]+)/(%d%d?%d?)$")
    bits = tonumber(bits)
    if not address then
        return nil
    end
    local wide = find(address, ":", 1, true) ~= nil
    local size = wide and 16 or 4
    if bits > size * 8 or C.inet_pton(wide and 10 or 2, address, packed) ~= 1 then
        return nil
    end
    return { bytes = to_string(packed, size), bits = bits }
end

local MAPPED = string.rep("\0", 10) .. "\255\255"

local function contains(network, address)
    local bytes, bits = network.bytes, network.bits
    if #bytes ~= #address then
        return false
    end
    local whole = (bits - bits % 8) / 8
    if sub(bytes, 1, whole) ~= sub(address, 1, whole) then
        return false
    end
    local rest = bits % 8
    if rest == 0 then
        return true
    end
    local mask = band(lshift(0xff, 8 - rest), 0xff)
    return band(byte(bytes, whole + 1), mask) == band(byte(address, whole + 1), mask)
end

-- Whether who asks is let in by the rules of ``target``: ``deny`` goes first, and ``allow`` alone keeps all others out.
function _M.admitted(target)
    local address = var.binary_remote_addr or ""
    if #address == 16 and sub(address, 1, 12) == MAPPED then
        address = sub(address, 13)
    end
    for _, network in ipairs(target.deny) do
        if contains(network, address) then
            return false
        end
    end
    if #target.allow == 0 then
        return true
    end
    for _, network in ipairs(target.allow) do
        if contains(network, address) then
            return true
        end
    end
    return false
end

return _M
