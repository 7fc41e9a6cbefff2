-- Signs in, one account after the other.  args: file of "email password"
local requests, i = {}, 0

function init(args)
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    for line in io.lines(args[1]) do
        local email, password = string.match(line, "(%S+) (%S+)")
        requests[#requests + 1] = wrk.format(nil, nil, nil,
            '{"email":"' .. email .. '","password":"' .. password .. '"}')
    end
end

function request()
    i = i % #requests + 1
    return requests[i]
end
