-- GETs with one token after the other, so that none is in a cache of
-- verified ones.  The requests are made beforehand.  args: file of tokens
local requests, i = {}, 0

function init(args)
    for line in io.lines(args[1]) do
        wrk.headers["Authorization"] = "Bearer " .. line
        requests[#requests + 1] = wrk.format("GET")
    end
end

function request()
    i = i % #requests + 1
    return requests[i]
end
