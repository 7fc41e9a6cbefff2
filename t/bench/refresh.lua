-- Each answer's refresh token makes a later request: no token is used twice.
-- A connection takes the one that has waited longest.  args: file of tokens
local tokens, first, last = {}, 1, 0

function init(args)
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    for line in io.lines(args[1]) do
        last = last + 1
        tokens[last] = line
    end
end

function request()
    local token = tokens[first]
    tokens[first] = nil
    first = first + 1
    return wrk.format(nil, nil, nil, '{"refreshToken":"' .. token .. '"}')
end

function response(status, headers, body)
    local token = string.match(body, '"refreshToken":"([^"]+)"')
    if token then
        last = last + 1
        tokens[last] = token
    end
end
