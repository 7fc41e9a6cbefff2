-- Each answer's refresh token makes a later request: no token is used twice.
-- A connection takes the one that has waited longest.  All tokens are of one
-- length, so that what stands around them is made once.  args: file of tokens
local find, sub = string.find, string.sub
local tokens, first, last = {}, 1, 0
local before, after, length

function init(args)
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    for line in io.lines(args[1]) do
        last = last + 1
        tokens[last] = line
    end
    length = #tokens[1]

    local whole = wrk.format(nil, nil, nil,
        '{"refreshToken":"' .. tokens[1] .. '"}')
    local from, to = find(whole, tokens[1], 1, true)

    before, after = sub(whole, 1, from - 1), sub(whole, to + 1)
end

function request()
    local token = tokens[first]
    tokens[first] = nil
    first = first + 1
    return before .. token .. after
end

function response(status, headers, body)
    local _, to = find(body, '"refreshToken":"', 1, true)
    if to then
        last = last + 1
        tokens[last] = sub(body, to + 1, to + length)
    end
end
